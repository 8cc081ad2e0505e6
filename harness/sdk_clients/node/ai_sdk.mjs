// Calls of the AI SDK through each of its providers; `responses` is the default of @ai-sdk/openai.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { all, CITY, FOLLOW_UP, QUESTION, REPORT, TOO_LONG, user, WEATHER, WEATHER_QUESTION } from "./questions.mjs";

function languageModel(kind, url, model) {
  const ours = createOpenAI({ baseURL: `${url}/v1`, apiKey: "key" });
  const compatible = createOpenAICompatible({
    name: "everstream",
    baseURL: `${url}/v1`,
    apiKey: "key",
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return {
    responses: () => ours(model),
    chat: () => ours.chat(model),
    completion: () => ours.completion(model),
    compatible: () => compatible(model),
    compatibleCompletion: () => compatible.completionModel(model),
  }[kind]();
}

const SHORT = { temperature: 0, maxOutputTokens: 16, maxRetries: 0 };
const LONG = { temperature: 0, maxOutputTokens: 128, maxRetries: 0 };

export async function aiGenerateText(url, model, kind) {
  const { text, finishReason, usage, warnings } = await generateText({
    model: languageModel(kind, url, model),
    prompt: QUESTION,
    ...SHORT,
  });
  return { text, finishReason, usage, warnings };
}

export async function aiStreamText(url, model, kind) {
  const result = streamText({ model: languageModel(kind, url, model), prompt: QUESTION, ...SHORT });
  const parts = await all(result.fullStream);
  return {
    kinds: parts.map((part) => part.type),
    errors: parts.filter((part) => part.type === "error").map((part) => String(part.error)),
    text: await result.text,
    finishReason: await result.finishReason,
    usage: await result.usage,
  };
}

// The first answer's messages go back as the client keeps them.
export async function aiSecondTurn(url, model, kind) {
  const asked = [user(QUESTION)];
  const first = await generateText({ model: languageModel(kind, url, model), messages: asked, ...SHORT });
  const messages = [...asked, ...first.response.messages, user(FOLLOW_UP)];
  const { text, finishReason } = await generateText({ model: languageModel(kind, url, model), messages, ...SHORT });
  return { text, finishReason };
}

export async function aiGenerateObject(url, model, kind) {
  const { object, finishReason } = await generateObject({
    model: languageModel(kind, url, model),
    schema: REPORT,
    prompt: WEATHER_QUESTION,
    ...LONG,
  });
  return { object, finishReason };
}

// The newer way to the same.
export async function aiOutputObject(url, model, kind) {
  const { output, finishReason } = await generateText({
    model: languageModel(kind, url, model),
    output: Output.object({ schema: REPORT }),
    prompt: WEATHER_QUESTION,
    ...LONG,
  });
  return { object: output, finishReason };
}

export async function aiStreamObject(url, model, kind) {
  const result = streamObject({
    model: languageModel(kind, url, model),
    schema: REPORT,
    prompt: WEATHER_QUESTION,
    ...LONG,
  });
  return { partial: await all(result.partialObjectStream), object: await result.object };
}

const weatherTool = () =>
  tool({ description: "The weather.", inputSchema: CITY, strict: true, execute: async () => WEATHER });

// The model calls a tool, and gets its result: the SDK runs the steps.
export async function aiTools(url, model, kind) {
  const { steps } = await generateText({
    model: languageModel(kind, url, model),
    tools: { get_weather: weatherTool() },
    prompt: WEATHER_QUESTION,
    toolChoice: "required",
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => (stepNumber === 0 ? {} : { toolChoice: "none" }),
    ...LONG,
  });
  return steps.map(({ text, toolCalls, toolResults, finishReason }) => ({ text, toolCalls, toolResults, finishReason }));
}

export async function aiToolsStream(url, model, kind) {
  const result = streamText({
    model: languageModel(kind, url, model),
    tools: { get_weather: weatherTool() },
    prompt: WEATHER_QUESTION,
    toolChoice: { type: "tool", toolName: "get_weather" },
    ...LONG,
  });
  return { calls: await result.toolCalls, finishReason: await result.finishReason };
}

export async function aiErrors(url, model, kind) {
  const asked = {
    "unknown model": () => generateText({ model: languageModel(kind, url, "other"), prompt: QUESTION, ...SHORT }),
    "too long": () => generateText({ model: languageModel(kind, url, model), prompt: TOO_LONG, ...SHORT }),
  };
  const thrown = {};
  for (const [name, ask] of Object.entries(asked)) {
    try {
      await ask();
    } catch (error) {
      const { statusCode, isRetryable, message, data } = error;
      thrown[name] = { isCallError: APICallError.isInstance(error), statusCode, isRetryable, message, data };
    }
  }
  return thrown;
}
