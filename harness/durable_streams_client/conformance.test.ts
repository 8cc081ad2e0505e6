import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.SERVICE_URL!, longPollTimeoutMs: 3000 });
