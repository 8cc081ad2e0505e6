"""A test model that leaves work behind: `infer` returns after one output, while a worker of the kind `by` goes on.

The workers fill queues that all requests share: an attribute, one in a list, one of the class, one of the module.
"""

import asyncio
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

from service import Worker

TOKENS = 5
module_queue = queue.Queue()


class InferlessPythonModel:
    class_queue = queue.Queue()

    def initialize(self):
        self.executor = ThreadPoolExecutor(2)
        self.queues = {"thread": queue.Queue(), "daemon": [queue.Queue()], "pool": {"of": queue.Queue()}}
        self.lazy_pool = None
        self.tasks = set()

    async def infer(self, inputs, stream_output_handler):
        shared = self.queue_of(inputs["by"])
        getattr(self, inputs["by"])(lambda: self.fill(shared, inputs))
        while shared.empty():
            await asyncio.sleep(0.001)
        stream_output_handler.send_streamed_output({"text": shared.get()})
        if "gate" not in inputs:
            for _ in range(TOKENS - 1):
                stream_output_handler.send_streamed_output({"text": await self.next(shared)})
        stream_output_handler.finalise_streamed_output()

    async def next(self, shared):
        while shared.empty():
            await asyncio.sleep(0.001)
        return shared.get()

    def queue_of(self, by):
        if by not in self.queues:
            return module_queue if by == "task" else self.class_queue
        found = self.queues[by]
        return found[0] if by == "daemon" else found["of"] if by == "pool" else found

    def fill(self, shared, inputs):
        for n in range(TOKENS):
            while n == 1 and "gate" in inputs and not Path(inputs["gate"]).exists():
                time.sleep(0.002)
            shared.put(f"{inputs['word']}{n} ")

    def thread(self, work):
        threading.Thread(target=work).start()

    def daemon(self, work):
        Worker(work).start()

    def pool(self, work):
        self.executor.submit(work)

    def timer(self, work):
        threading.Timer(0.01, work).start()

    def thread_pool(self, work):
        self.lazy_pool = self.lazy_pool or ThreadPool(2)
        self.lazy_pool.apply_async(work)

    def default_executor(self, work):
        asyncio.get_running_loop().run_in_executor(None, work)

    def task(self, work):
        async def run():
            await asyncio.get_running_loop().run_in_executor(None, work)

        task = asyncio.create_task(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
