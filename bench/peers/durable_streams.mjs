// The reference server of Durable Streams, which keeps its streams in memory. Its arguments are the port and the seconds
// between heartbeats.
import { DurableStreamTestServer } from "@durable-streams/server";

const [port, heartbeat] = process.argv.slice(2).map(Number);
await new DurableStreamTestServer({ port, longPollTimeout: 1000 * heartbeat }).start();
