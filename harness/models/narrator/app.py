"""A test model for pictures of the page and for the deploy drill, with the chat model's inputs.

It gives every prompt the same answer, at the pace of a real model (NARRATOR_PAUSE_S). An engine that takes over goes
on with the next word.
"""

import asyncio
import os
import re

CONCURRENT = True
PAUSE_S = float(os.environ.get("NARRATOR_PAUSE_S", "0.04"))
TEXT = """\
Sunlight looks white, but it is a mixture of **all colours**. On its way down it meets the molecules of the air, and \
they scatter it in every direction, short waves far more than long ones:

- *Blue* light, at 450 nm, is scattered about four times as much as red.
- *Violet* even more, but the sun sends less of it, and our eyes see it badly.
- *Red* and yellow go almost straight on.

So blue reaches us from everywhere, and the whole sky glows with it. In the evening the light takes a longer way \
through the air. Most of its blue is lost before it arrives, and what is left paints the sunset:

```python
def scattered(wavelength_nm):
    return 1 / wavelength_nm**4
```

That is Rayleigh scattering, named after Lord Rayleigh, who worked it out in 1871.
"""
TOKENS = re.findall(r"\s*\S+", TEXT)


class InferlessPythonModel:
    async def infer(self, inputs, stream_output_handler):
        for token in TOKENS[len(stream_output_handler.delivered) :]:
            stream_output_handler.send_streamed_output({"text": token})
            await asyncio.sleep(PAUSE_S)
        usage = {"prompt_tokens": 8, "completion_tokens": len(TOKENS), "total_tokens": 8 + len(TOKENS)}
        stream_output_handler.finalise_streamed_output("stop", usage)
