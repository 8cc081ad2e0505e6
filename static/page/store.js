// Keeps conversations in this browser: in IndexedDB, or only in memory where the browser denies that. Each message is a
// record of its own, so that two tabs with one conversation don't overwrite each other's.

const NAME = 'everstream';
const VERSION = 1;

// Never rejects.
export async function openStore() {
  try {
    return new Store(new Database(await openDatabase()), true);
  } catch {
    return new Store(new Memory(), false);
  }
}

class Store {
  #records;
  #channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(NAME);

  constructor(records, isPersistent) {
    this.#records = records;
    this.isPersistent = isPersistent;
  }

  // Calls `onChange` when another tab has changed the list of conversations.
  watch(onChange) {
    if (this.#channel) this.#channel.onmessage = () => onChange();
  }

  // The newest first.
  async conversations() {
    const found = await this.#records.all('conversations');
    return found.sort((a, b) => b.updatedAt - a.updatedAt);
  }

  // A Map by id.
  async messages(conversation) {
    const found = await this.#records.all('messages', conversation);
    return new Map(found.map((message) => [message.id, message]));
  }

  // Answers that had not ended when they were last saved, in any conversation.
  async openAnswers() {
    const found = await this.#records.all('messages');
    return found.filter((message) => message.role === 'assistant' && !message.end);
  }

  // The ids of conversations in which a text occurs.
  async search(text) {
    const wanted = text.toLowerCase();
    const found = await this.#records.all('messages');
    return new Set(found.filter((message) => message.text.toLowerCase().includes(wanted)).map(({ conversation }) => conversation));
  }

  async putConversation(conversation) {
    await this.#records.put('conversations', conversation);
    this.#channel?.postMessage('changed');
  }

  putMessage(message) {
    return this.#records.put('messages', message);
  }

  async deleteMessages(ids) {
    for (const id of ids) await this.#records.delete('messages', id);
  }

  async deleteConversation(id) {
    const messages = await this.messages(id);
    await this.deleteMessages([...messages.keys()]);
    await this.#records.delete('conversations', id);
    this.#channel?.postMessage('changed');
  }
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('conversations', { keyPath: 'id' });
      request.result.createObjectStore('messages', { keyPath: 'id' }).createIndex('conversation', 'conversation');
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another tab has an older version open'));
  });
}

class Database {
  #database;

  constructor(database) {
    this.#database = database;
    // A newer version of the page must not wait for this tab.
    database.onversionchange = () => database.close();
  }

  all(store, conversation = null) {
    const records = this.#database.transaction(store).objectStore(store);
    return settled(conversation === null ? records.getAll() : records.index('conversation').getAll(conversation));
  }

  put(store, record) {
    return settled(this.#database.transaction(store, 'readwrite').objectStore(store).put(record));
  }

  delete(store, id) {
    return settled(this.#database.transaction(store, 'readwrite').objectStore(store).delete(id));
  }
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class Memory {
  #stores = { conversations: new Map(), messages: new Map() };

  async all(store, conversation = null) {
    const found = [...this.#stores[store].values()];
    return structuredClone(conversation === null ? found : found.filter((each) => each.conversation === conversation));
  }

  async put(store, record) {
    this.#stores[store].set(record.id, structuredClone(record));
  }

  async delete(store, id) {
    this.#stores[store].delete(id);
  }
}
