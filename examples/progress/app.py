"""A long job with a progress bar: counts primes, and sends its progress after each step."""

STEP = 300_000


class InferlessPythonModel:
    def initialize(self):
        pass

    # Every output has the same keys, as Inferless requires of a stream.
    def infer(self, inputs, stream_output_handler):
        steps, primes = inputs["steps"], 0
        for step in range(1, steps + 1):
            primes += sum(is_prime(number) for number in range((step - 1) * STEP, step * STEP))
            message = f"{primes} primes below {step * STEP}"
            stream_output_handler.send_streamed_output(
                {"step": step, "of": steps, "message": message, "result": primes if step == steps else None}
            )
        stream_output_handler.finalise_streamed_output()

    def finalize(self):
        pass


def is_prime(number):
    if number < 4:
        return number > 1
    return number % 2 == 1 and all(number % divisor for divisor in range(3, int(number**0.5) + 1, 2))
