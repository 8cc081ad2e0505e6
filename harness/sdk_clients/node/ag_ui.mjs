// Clients of AG-UI's protocol: its own `HttpAgent`, and TanStack AI's chat as its `useChat` holds it, without React.

import fs from "node:fs";
import { HttpAgent } from "@ag-ui/client";
import { toolDefinition } from "@tanstack/ai/client";
import { ChatClient, fetchServerSentEvents } from "@tanstack/ai-client";
import { z } from "zod";

const WEATHER = { name: "weather", description: "The weather in a city", parameters: { type: "object" } };

// Its messages, its events, and what it makes of them.
export async function agentRun(url, model, { text, messages = [], tools = [WEATHER], threadId, runId }) {
  const events = [];
  const asked = { id: "asked", role: "user", content: text };
  const agent = new HttpAgent({ url: `${url}/api/ag-ui`, threadId, initialMessages: [...messages, asked] });
  agent.subscribe({ onEvent: ({ event }) => void events.push(event) });
  const { newMessages } = await agent.runAgent({ tools, runId });
  return { events, newMessages, messages: agent.messages };
}

// `marker` is made once an answer holds the text `until`.
function marking({ until, marker }, messages) {
  const last = messages.at(-1);
  const isThere = last?.role === "assistant" && JSON.stringify(last.parts).includes(until);
  if (marker && isThere) fs.writeFileSync(marker, "");
}

function chatOf(url, given) {
  const requests = [];
  const fetchClient = async (address, init) => {
    const response = await fetch(address, init);
    const isFirst = requests.length === 0;
    requests.push([init.method, String(address).slice(url.length), response.status, init.headers["Last-Event-ID"] ?? ""]);
    return given.break && isFirst ? broken(response) : response;
  };
  const weather = toolDefinition({
    name: "weather",
    description: "The weather in a city",
    inputSchema: z.object({ city: z.string() }),
    outputSchema: z.string(),
  }).client(() => given.result);
  let error;
  const client = new ChatClient({
    connection: fetchServerSentEvents(`${url}/api/ag-ui`, { fetchClient }),
    tools: given.result ? [weather] : [],
    threadId: "a-thread",
    persistence: given.storage,
    onMessagesChange: (messages) => marking(given, messages),
    onError: (found) => (error = found),
  });
  return { client, report: () => ({ messages: client.getMessages(), error: error?.message, requests }) };
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

// Until the answer, or that to a tool's result, is whole.
async function settled(client) {
  do await pause();
  while (client.getIsLoading());
}

export async function tanstackAsk(url, model, given) {
  const { client, report } = chatOf(url, given);
  await client.sendMessage(given.text);
  await settled(client);
  client.dispose();
  return report();
}

// A page that is loaded again amid an answer, with what it has kept.
export async function tanstackReload(url, model, given) {
  const kept = new Map();
  const storage = {
    getItem: (id) => kept.get(id),
    setItem: (id, value) => void kept.set(id, structuredClone(value)),
    removeItem: (id) => void kept.delete(id),
  };
  const before = chatOf(url, { ...given, storage });
  void before.client.sendMessage(given.text);
  while (!JSON.stringify(before.client.getMessages().slice(1)).includes(given.until)) await pause();
  before.client.dispose();
  const { client, report } = chatOf(url, { storage });
  client.attach();
  await settled(client);
  client.dispose();
  return report();
}

// The response, but that its connection breaks instead of its end.
function broken(response) {
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) controller.error(new TypeError("terminated"));
      else controller.enqueue(value);
    },
  });
  return new Response(body, { headers: response.headers });
}
