// Chats of the AI SDK's UI packages, as `useChat` holds them, without React.

import fs from "node:fs";
import { WorkflowChatTransport } from "@ai-sdk/workflow/client";
import { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from "ai";

// What `Chat` of @ai-sdk/react has, with a look at each state of the last message.
class State {
  status = "ready";
  error = undefined;
  snapshot = (thing) => structuredClone(thing);

  constructor(messages, onChange) {
    this.messages = messages;
    this.onChange = onChange;
  }

  pushMessage = (message) => this.change([...this.messages, this.snapshot(message)]);
  popMessage = () => this.change(this.messages.slice(0, -1));
  replaceMessage = (index, message) =>
    this.change(this.messages.map((each, at) => (at === index ? this.snapshot(message) : each)));

  change(messages) {
    this.messages = messages;
    this.onChange(messages.at(-1));
  }
}

class Chat extends AbstractChat {
  constructor({ messages, onChange, ...init }) {
    super({ ...init, state: new State(messages, onChange) });
  }
}

// The test learns where the chat is from files: `marker` is made once an answer holds the text `until`, and `responses`
// has the number of responses that have begun.
function marking({ until, marker }) {
  return (message) => {
    const isThere = message.role === "assistant" && JSON.stringify(message.parts).includes(until);
    if (marker && isThere) fs.writeFileSync(marker, "");
  };
}

function chatOf(url, given) {
  const requests = [];
  const finishes = [];
  const chat = new Chat({
    id: given.id,
    messages: given.messages ?? [],
    onChange: marking(given),
    transport: transportOf(url, given, requests),
    onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
      finishes.push({ isAbort, isDisconnect, isError, finishReason }),
    onToolCall: ({ toolCall }) => {
      const { toolName: tool, toolCallId } = toolCall;
      if (given.results) void chat.addToolOutput({ tool, toolCallId, output: given.results[tool] });
    },
    sendAutomaticallyWhen: given.results && lastAssistantMessageIsCompleteWithToolCalls,
  });
  const report = () => ({
    messages: chat.messages,
    status: chat.status,
    error: chat.error?.message,
    requests,
    finishes,
  });
  return { chat, report };
}

function transportOf(url, { kind, body = {}, startIndex, resumePath, responses }, requests) {
  const api = `${url}/api/chat`;
  const bodies = Array.isArray(body) ? [...body] : [body];
  // The last body is that of all further requests, too.
  const nextBody = () => (bodies.length > 1 ? bodies.shift() : bodies[0]);
  const fetch = async (address, init) => {
    const response = await globalThis.fetch(address, init);
    requests.push([init?.method ?? "GET", String(address).slice(url.length), response.status]);
    if (responses) fs.writeFileSync(responses, String(requests.length));
    return response;
  };
  const prepareReconnectToStreamRequest = resumePath && (() => ({ api: `${url}${resumePath}` }));
  if (kind === "default") return new DefaultChatTransport({ api, fetch, body: nextBody, prepareReconnectToStreamRequest });
  return new WorkflowChatTransport({
    api,
    fetch,
    initialStartIndex: startIndex,
    prepareSendMessagesRequest: ({ id, messages }) => ({ body: { id, messages, ...nextBody() } }),
    prepareReconnectToStreamRequest,
  });
}

export async function uiAsk(url, model, given) {
  const { chat, report } = chatOf(url, given);
  await chat.sendMessage({ text: given.text });
  return report();
}

// The connection breaks, and the chat asks for the rest as `useChat({ resume: true })` does when the page is seen again.
export async function uiAskAndResume(url, model, given) {
  const { chat, report } = chatOf(url, given);
  await chat.sendMessage({ text: given.text });
  const before = structuredClone(report());
  await chat.resumeStream();
  return { before, after: report() };
}

// A page that was loaded again, with the messages that it has kept.
export async function uiReload(url, model, given) {
  const { chat, report } = chatOf(url, given);
  await chat.resumeStream();
  return report();
}

// The user stops the answer, and goes away.
export async function uiStop(url, model, given) {
  const { chat, report } = chatOf(url, given);
  const sent = chat.sendMessage({ text: given.text });
  while (!fs.existsSync(given.marker)) await new Promise((resolve) => setTimeout(resolve, 5));
  await chat.stop();
  await sent;
  return report();
}
