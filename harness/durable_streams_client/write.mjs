// `node write.mjs URL COUNT` makes a stream, appends {"n": 0}, {"n": 1}, … to it as an idempotent producer, and closes it.
// It begins each with a line of standard input, so that a test sets the pace.

import readline from "node:readline";
import { DurableStream, IdempotentProducer } from "@durable-streams/client";

const [url, count] = process.argv.slice(2);
const RETRY_MS = 50;

// A producer's requests are numbered, so that they can be repeated.
async function persistent(...request) {
  for (;;) {
    try {
      const response = await fetch(...request);
      if (response.status < 500) return response;
    } catch (error) {
      console.error(error);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

const stream = await DurableStream.create({ url, contentType: "application/json", warnOnHttp: false });
const errors = [];
const producer = new IdempotentProducer(stream, "writer", {
  lingerMs: 0,
  fetch: persistent,
  onError: (error) => errors.push(error),
});
console.log("made");
let n = 0;
for await (const _ of readline.createInterface({ input: process.stdin })) {
  producer.append(JSON.stringify({ n }));
  n += 1;
  if (n === Number(count)) break;
}
await producer.close();
if (errors.length) throw errors[0];
console.log("closed");
process.exit(0);
