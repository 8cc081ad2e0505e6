"""The UI message stream protocol of Vercel's AI SDK, as its `useChat` and `WorkflowChatTransport` speak it."""
