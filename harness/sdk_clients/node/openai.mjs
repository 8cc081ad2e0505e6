// Calls of the `openai` package from npm; each returns what the client made of the answer.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  all,
  CITY,
  FOLLOW_UP,
  FORCED,
  GREEDY,
  PROMPT,
  QUESTION,
  REPORT,
  TOO_LONG,
  user,
  WEATHER,
  WEATHER_QUESTION,
} from "./questions.mjs";

const clientOf = (url, options = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "key", ...options });
const completionsOf = (url) => clientOf(url).chat.completions;

export async function openaiChat(url, model) {
  const { data, request_id } = await completionsOf(url)
    .create({ model, messages: [user(QUESTION)], ...GREEDY })
    .withResponse();
  return { ...data, request_id };
}

export async function openaiChatStream(url, model) {
  const options = { stream: true, stream_options: { include_usage: true } };
  return all(await completionsOf(url).create({ model, messages: [user(QUESTION)], ...GREEDY, ...options }));
}

export async function openaiChatStreamHelper(url, model) {
  return completionsOf(url)
    .stream({ model, messages: [user(QUESTION)], ...GREEDY })
    .finalChatCompletion();
}

// The first answer's message goes back as it came.
export async function openaiSecondTurn(url, model) {
  const asked = [user(QUESTION)];
  const first = await completionsOf(url).create({ model, messages: asked, ...GREEDY });
  const messages = [...asked, first.choices[0].message, user(FOLLOW_UP)];
  return completionsOf(url).create({ model, messages, ...GREEDY });
}

const OPENAI_TOOL = {
  type: "function",
  function: { name: "get_weather", description: "The weather.", parameters: z.toJSONSchema(CITY), strict: true },
};

export async function openaiTools(url, model) {
  const asked = [user(WEATHER_QUESTION)];
  const tools = [OPENAI_TOOL];
  const choice = { type: "function", function: { name: "get_weather" } };
  const first = await completionsOf(url).create({ model, messages: asked, tools, tool_choice: choice, ...FORCED });
  const message = first.choices[0].message;
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: WEATHER };
  const messages = [...asked, message, result];
  const second = await completionsOf(url).create({ model, messages, tools, tool_choice: "none", ...GREEDY });
  return { first, second };
}

export async function openaiToolsStream(url, model) {
  return completionsOf(url)
    .stream({ model, messages: [user(WEATHER_QUESTION)], tools: [OPENAI_TOOL], tool_choice: "required", ...FORCED })
    .finalChatCompletion();
}

export async function openaiParse(url, model) {
  const response_format = zodResponseFormat(REPORT, "report");
  return completionsOf(url).parse({ model, messages: [user(WEATHER_QUESTION)], response_format, ...FORCED });
}

export async function openaiCompletion(url, model) {
  return clientOf(url).completions.create({ model, prompt: PROMPT, ...GREEDY });
}

export async function openaiResponse(url, model) {
  return clientOf(url).responses.create({ model, input: QUESTION, temperature: 0, max_output_tokens: 16 });
}

export async function openaiResponseStream(url, model) {
  return all(
    await clientOf(url).responses.create({ model, input: QUESTION, temperature: 0, max_output_tokens: 16, stream: true }),
  );
}

export async function openaiResponseParse(url, model) {
  const text = { format: zodTextFormat(REPORT, "report") };
  return clientOf(url).responses.parse({ model, input: WEATHER_QUESTION, text, temperature: 0, max_output_tokens: 128 });
}

export async function openaiIdempotent(url, model) {
  // The client's own option for a key is never sent.
  const options = { headers: { "Idempotency-Key": crypto.randomUUID() }, maxRetries: 0 };
  const ask = (content) =>
    completionsOf(url).create({ model, messages: [user(content)], temperature: 1, max_tokens: 16 }, options);
  const first = await ask(QUESTION);
  return { first, second: await ask(QUESTION), other: await refused(() => ask(FOLLOW_UP)) };
}

// What the client throws.
async function refused(call) {
  try {
    return { returned: await call() };
  } catch (error) {
    const { status, code, type, param, requestID, message } = error;
    return { class: error.constructor.name, status, code, type, param, request_id: requestID, message };
  }
}

export async function openaiErrors(url, model) {
  const client = clientOf(url, { maxRetries: 0 });
  return {
    "unknown model": await refused(() => client.chat.completions.create({ model: "other", messages: [user("a")] })),
    "too long": await refused(() => client.chat.completions.create({ model, messages: [user(TOO_LONG)] })),
    embeddings: await refused(() => client.embeddings.create({ model, input: "a" })),
  };
}
