// The service's address. It serves this module as <base>/static/v-<version>/base.js, or without the version.
export const BASE = import.meta.url.replace(/static\/(v-[0-9a-f]+\/)?base\.js$/, '');
