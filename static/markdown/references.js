// The link definitions of an answer, [label]: address. They may come after the links that use them: what was rendered
// without one is remembered, and rendered again once it is there. Pure.

export function createReferences() {
  const known = Object.create(null);
  // What waits for each label.
  const waiting = new Map();
  let arrived = [];

  // Calls `render` with an environment's references. Returns its result and the labels that it looked for in vain.
  function track(render) {
    const missing = new Set();
    const references = new Proxy(known, {
      get(_, label) {
        if (!(label in known)) missing.add(label);
        return known[label];
      },
      set(_, label, value) {
        known[label] = value;
        arrived.push(label);
        return true;
      },
    });
    const result = render(references);
    for (const label of missing) if (label in known) missing.delete(label);
    return { result, missing };
  }

  function wait(missing, renderAgain) {
    for (const label of missing) {
      if (!waiting.has(label)) waiting.set(label, []);
      waiting.get(label).push(renderAgain);
    }
  }

  // Renders again what waited for definitions that have come.
  function resolve() {
    const ready = new Set(arrived.flatMap((label) => waiting.get(label) || []));
    for (const label of arrived) waiting.delete(label);
    arrived = [];
    for (const renderAgain of ready) renderAgain();
  }

  // For what is rendered only for now.
  function copy() {
    return Object.create(known);
  }

  return { track, wait, resolve, copy };
}
