"""The Durable Streams protocol (ElectricSQL, PROTOCOL.md), over topics and over generations."""
