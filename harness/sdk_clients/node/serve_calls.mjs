// Makes calls of clients from npm, in their own environment, as `serve_calls.py` does: `node serve_calls.mjs` answers each
// JSON list of a function's name and its arguments with a line of JSON. `node serve_calls.mjs CALL URL MODEL` makes one.

import readline from "node:readline";
import * as agUi from "./ag_ui.mjs";
import * as aiSdk from "./ai_sdk.mjs";
import * as aiSdkUi from "./ai_sdk_ui.mjs";
import * as openai from "./openai.mjs";

const CALL_TIMEOUT_MS = 210_000;

const calls = { ...agUi, ...aiSdk, ...aiSdkUi, ...openai };

async function answer(name, ...given) {
  // A call that hangs ends the process.
  const timer = setTimeout(() => process.exit(1), CALL_TIMEOUT_MS);
  try {
    return { returned: await calls[name](...given) };
  } catch (error) {
    return { raised: `${error.stack}\n${JSON.stringify(error)}` };
  } finally {
    clearTimeout(timer);
  }
}

const [name, ...given] = process.argv.slice(2);
if (name) {
  console.log(JSON.stringify(await answer(name, ...given), null, 1));
} else {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(...JSON.parse(line))));
  }
}
