// What every client asks, as in `questions.py`.

import { z } from "zod";

export const QUESTION = "What is the capital of France?";
export const FOLLOW_UP = "And of Italy?";
export const WEATHER_QUESTION = "What is the weather in Paris?";
export const WEATHER = "18 degrees, light rain";
export const PROMPT = "Once upon a time";
export const TOO_LONG = "word ".repeat(5000);
export const GREEDY = { temperature: 0, max_tokens: 16 };
export const FORCED = { temperature: 0, max_tokens: 128 };
export const CITY = z.object({ city: z.enum(["Paris", "Rome"]) });
export const REPORT = z.object({ city: z.enum(["Paris", "Rome"]), rain: z.boolean() });

export const user = (content) => ({ role: "user", content });

// All parts of a stream.
export async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}
