// A form for a model's inputs, made from its schema as `GET /models` describes it. Values are text, as typed, so that
// large numbers stay exact; a checkbox's value is true, false, or null while nobody has touched it.

const BOOLEAN = 'BOOL';
const TEXTS = new Set(['STRING', 'BYTES']);
const FLOATS = new Set(['FP16', 'FP32', 'FP64', 'BF16']);

// The pure part.

// Its prompt is one that a model tokenizes, and it can be used with nothing else.
export function isChat(model) {
  const others = Object.entries(model.inputs).filter(([name]) => name !== 'prompt');
  return Boolean(model.inputs.prompt?.is_prompt) && !others.some(([, input]) => input.required);
}

// No engine has published what the model takes, and the web process has no copy of its folder.
export function isUnknown(model) {
  return model.is_streaming === null;
}

// What to show for each input: { name, kind, required, example, min, max, step }. kind: text, number, checkbox or json.
// Without a `label`, the name is shown.
export function fieldsOf(inputs) {
  return Object.entries(inputs).map(([name, input]) => ({
    name,
    kind: kindOf(input),
    required: input.required,
    example: exampleOf(input),
    min: input.minimum,
    max: input.maximum,
    step: FLOATS.has(input.datatype) ? 'any' : 1,
    maxLength: input.max_length,
  }));
}

function kindOf(input) {
  if (!isSingle(input) || input.datatype === 'JSON' || input.format === 'json') return 'json';
  if (TEXTS.has(input.datatype)) return 'text';
  return input.datatype === BOOLEAN ? 'checkbox' : 'number';
}

function isSingle(input) {
  return input.shape.length === 1 && input.shape[0] === 1;
}

// Schemas wrap the example of a single value in a list.
function exampleOf(input) {
  const { example } = input;
  const value = isSingle(input) && Array.isArray(example) && example.length === 1 ? example[0] : example;
  if (value === undefined || value === null || typeof value === 'string') return value ?? '';
  return input.datatype === BOOLEAN ? Boolean(value) : JSON.stringify(value);
}

export function initialValues(fields) {
  return Object.fromEntries(fields.map((field) => [field.name, initialValue(field)]));
}

function initialValue(field) {
  if (field.kind === 'checkbox') return field.required ? field.example === true : null;
  return field.required ? field.example : '';
}

// The JSON object to send, as text. Throws an Error that names the input.
export function toJson(fields, values, options) {
  const parts = Object.entries(options).map(([name, value]) => [name, JSON.stringify(value)]);
  for (const field of fields) {
    const json = jsonOf(field, values[field.name]);
    if (json !== null) parts.push([field.name, json]);
  }
  return `{${parts.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`;
}

// null: leave it out.
function jsonOf(field, value) {
  if (field.kind === 'checkbox') return value === null ? null : String(value);
  if (value === '') return field.required && field.kind === 'text' ? '""' : null;
  if (field.kind === 'text') return JSON.stringify(value);
  try {
    JSON.parse(value);
  } catch {
    throw new Error(`${field.name} must be ${field.kind === 'json' ? 'JSON' : 'a number'}`);
  }
  return value;
}

// The part that touches the page.

export function renderFields(container, fields, values) {
  container.replaceChildren(...fields.flatMap((field) => {
    const input = inputFor(field, values[field.name], container.id);
    const label = document.createElement('label');
    label.htmlFor = input.id;
    label.textContent = field.label ?? (field.required ? field.name : `${field.name} (optional)`);
    return field.kind === 'checkbox' ? [wrap('checkbox', input, label)] : [wrap('field', label, input)];
  }));
}

function wrap(className, ...children) {
  const element = document.createElement('div');
  element.className = className;
  element.append(...children);
  return element;
}

function inputFor(field, value, prefix) {
  const input = document.createElement(field.kind === 'json' ? 'textarea' : 'input');
  input.id = `${prefix}-${field.name}`;
  input.name = field.name;
  if (field.kind === 'checkbox') {
    input.type = 'checkbox';
    input.checked = value === true;
    input.indeterminate = value === null;
    return input;
  }
  if (field.kind === 'number') setNumberLimits(input, field);
  if (field.kind === 'json') input.rows = 2;
  if (field.kind === 'text' && field.maxLength) input.maxLength = field.maxLength;
  input.required = field.required && field.kind !== 'text';
  input.placeholder = field.example;
  input.value = value;
  return input;
}

function setNumberLimits(input, field) {
  input.type = 'number';
  input.step = field.step;
  if (field.min !== undefined) input.min = field.min;
  if (field.max !== undefined) input.max = field.max;
}

export function readValues(container, fields) {
  return Object.fromEntries(fields.map((field) => [field.name, readValue(container, field)]));
}

function readValue(container, field) {
  const input = container.querySelector(`[name=${CSS.escape(field.name)}]`);
  // A number field has no value for what is no number, such as 1e.
  if (input.validity.badInput) return '?';
  if (field.kind !== 'checkbox') return input.value;
  return input.indeterminate ? null : input.checked;
}
