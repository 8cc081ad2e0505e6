// `node follow.mjs URL sse` (or long-poll) follows a stream from its beginning to its end, and prints each message as a
// line of JSON. The client itself repeats requests, but not one whose connection breaks within an answer: then a new one
// goes on from the offset of the last batch.

import { stream } from "@durable-streams/client";

const [url, live] = process.argv.slice(2);
const RETRY_MS = 100;
let offset = "-1";
let isClosed = false;

async function follow() {
  const followed = await stream({ url, live, offset, json: true, warnOnHttp: false });
  // `closed` may resolve before the last batch is delivered.
  await new Promise((resolve, reject) => {
    followed.subscribeJson((batch) => {
      for (const item of batch.items) console.log(JSON.stringify(item));
      offset = batch.offset;
      isClosed = batch.streamClosed;
      if (isClosed) resolve();
    });
    followed.closed.catch(reject);
  });
}

while (!isClosed) {
  try {
    await follow();
  } catch (error) {
    if (error.status >= 400 && error.status < 500) throw error;
    console.error(error);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
