// Keeps conversations in this browser: in IndexedDB, or only in memory where the browser denies that. Each message is a
// record of its own, so that two tabs with one conversation don't overwrite each other's, and so is each output that is
// more than text, as it may be large.

const NAME = 'everstream';
const VERSION = 1;
// A browser that is broken or busy may never answer.
const OPENS_WITHIN_MS = 5000;
const STORES = ['conversations', 'messages', 'outputs'];

// Never rejects. `onLost` is called if the browser takes the database away later.
export async function openStore(onLost) {
  try {
    return new Store(await openDatabase(), onLost);
  } catch {
    return new Store(null, onLost);
  }
}

class Store {
  #records;
  #onLost;
  #channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(NAME);
  // How many outputs of a message are kept.
  #kept = new Map();

  constructor(database, onLost) {
    this.#onLost = onLost;
    this.isPersistent = database !== null;
    this.#records = database ? new Database(database) : new Memory();
    // Another tab has a newer version, or site data were cleared.
    if (database) {
      database.onversionchange = () => { database.close(); this.#lose(); };
      database.onclose = () => this.#lose();
    }
  }

  #lose() {
    this.#records = new Memory();
    this.isPersistent = false;
    this.#onLost();
  }

  // What another tab has done: `onChange(id)` to a conversation or the list, `onDelete(ids)` to messages.
  watch({ onChange, onDelete }) {
    if (!this.#channel) return;
    this.#channel.onmessage = ({ data }) => {
      if (data.deleted) onDelete(data.deleted);
      onChange(data.changed ?? '');
    };
  }

  // The newest first.
  async conversations() {
    const found = await this.#records.all('conversations');
    return found.sort((a, b) => b.updatedAt - a.updatedAt);
  }

  // A Map by id.
  async messages(conversation) {
    const found = await this.#records.all('messages', conversation);
    return new Map(await Promise.all(found.map(async (message) => [message.id, await this.#withOutputs(message)])));
  }

  // Answers that had not ended when they were last saved, in any conversation.
  async openAnswers() {
    const found = await this.#records.select('messages', ({ role, end }) => role === 'assistant' && !end);
    return Promise.all(found.map((message) => this.#withOutputs(message)));
  }

  async #withOutputs(message) {
    if (message.role === 'user') return message;
    const found = await this.#records.outputs(message.id);
    this.#kept.set(message.id, found.length);
    return { ...message, outputs: found.map(({ json }) => json) };
  }

  // The ids of conversations in which a text occurs.
  async search(text) {
    const wanted = text.toLowerCase();
    const found = await this.#records.select('messages', (message) => searchable(message).toLowerCase().includes(wanted));
    return new Set(found.map(({ conversation }) => conversation));
  }

  async putConversation(conversation) {
    await this.#records.put('conversations', conversation);
    this.#channel?.postMessage({ changed: conversation.id });
  }

  async putMessage({ outputs = [], ...message }) {
    const kept = this.#kept.get(message.id) ?? 0;
    this.#kept.set(message.id, outputs.length);
    if (!await this.#records.putNewest(message)) return;
    for (let at = kept; at < outputs.length; at += 1) {
      await this.#records.put('outputs', { message: message.id, at, json: outputs[at] });
    }
  }

  async deleteMessages(ids) {
    for (const id of ids) await this.#records.deleteMessage(id);
    this.#channel?.postMessage({ deleted: ids });
  }

  async deleteConversation(id) {
    const found = await this.#records.all('messages', id);
    await this.#records.delete('conversations', id);
    await this.deleteMessages(found.map((message) => message.id));
  }
}

function searchable({ prefix = '', text, values }) {
  return [prefix + text, ...Object.values(values ?? {})].join('\n');
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    setTimeout(() => reject(new Error('the database does not open')), OPENS_WITHIN_MS);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('conversations', { keyPath: 'id' });
      request.result.createObjectStore('messages', { keyPath: 'id' }).createIndex('conversation', 'conversation');
      request.result.createObjectStore('outputs', { keyPath: ['message', 'at'] });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another tab has an older version open'));
  });
}

// Methods are async, because a database that was closed throws at once.
class Database {
  #database;

  constructor(database) {
    this.#database = database;
  }

  async all(store, conversation = null) {
    const records = this.#records(store);
    return settled(conversation === null ? records.getAll() : records.index('conversation').getAll(conversation));
  }

  // One record in memory at a time.
  async select(store, isWanted) {
    const found = [];
    const request = this.#records(store).openCursor();
    await new Promise((resolve, reject) => {
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor) return resolve();
        if (isWanted(cursor.value)) found.push(cursor.value);
        return cursor.continue();
      };
    });
    return found;
  }

  async outputs(message) {
    return settled(this.#records('outputs').getAll(outputsOf(message)));
  }

  async put(store, record) {
    return settled(this.#records(store, 'readwrite').put(record));
  }

  // Returns whether it was put: a tab that lags behind must not overwrite what another one has.
  async putNewest(message) {
    const records = this.#records('messages', 'readwrite');
    const kept = await settled(records.get(message.id));
    if (kept && isNewer(kept, message)) return false;
    await settled(records.put(message));
    return true;
  }

  async delete(store, id) {
    return settled(this.#records(store, 'readwrite').delete(id));
  }

  async deleteMessage(id) {
    await this.delete('messages', id);
    return settled(this.#records('outputs', 'readwrite').delete(outputsOf(id)));
  }

  #records(store, mode = 'readonly') {
    return this.#database.transaction(store, mode).objectStore(store);
  }
}

function isNewer(kept, { version = 0, n = 0, end = null }) {
  if ((kept.version ?? 0) !== version) return (kept.version ?? 0) > version;
  return (kept.n ?? 0) > n || (Boolean(kept.end) && !end);
}

function outputsOf(message) {
  return IDBKeyRange.bound([message, 0], [message, Infinity]);
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class Memory {
  #stores = Object.fromEntries(STORES.map((name) => [name, new Map()]));

  async all(store, conversation = null) {
    return this.select(store, (record) => conversation === null || record.conversation === conversation);
  }

  async select(store, isWanted) {
    return structuredClone([...this.#stores[store].values()].filter(isWanted));
  }

  async outputs(message) {
    return this.select('outputs', (output) => output.message === message);
  }

  async putNewest(message) {
    await this.put('messages', message);
    return true;
  }

  async put(store, record) {
    this.#stores[store].set(record.id ?? `${record.message} ${record.at}`, structuredClone(record));
  }

  async delete(store, id) {
    this.#stores[store].delete(id);
  }

  async deleteMessage(id) {
    this.#stores.messages.delete(id);
    for (const [key, { message }] of this.#stores.outputs) if (message === id) this.#stores.outputs.delete(key);
  }
}
