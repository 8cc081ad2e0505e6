// What the page knows, as a pure function of the events that it got.
export const CHART_S = 300;
export const START = { shown: null, points: [], link: 'connecting', message: 'Connecting…' };

export function applyEvent(state, type, data) {
  switch (type) {
    case 'history':
      return { ...state, points: merged(state.points, data.points) };
    case 'message':
      return { ...state, shown: data, points: merged(state.points, [data.point]), link: 'live', message: 'Live' };
    case 'away':
      return { ...state, link: 'away', message: `${data.message}. The figures below are old.` };
    case 'busy':
      return { ...state, link: 'busy', message: `Not admitted: ${data.message}` };
    case 'lost':
      // The end of a stream that was not admitted is no news.
      if (state.link === 'busy') return state;
      return { ...state, link: 'lost', message: 'Connection lost, reconnecting…' };
    default:
      return state;
  }
}

// Another worker may have seen what this page has not, and the other way round. A log that began anew begins anew here.
function merged(known, more) {
  const newest = more.length ? more[more.length - 1].at : known.length ? known[known.length - 1].at : 0;
  const byTime = new Map([...known, ...more].map((point) => [point.at, point]));
  const points = [...byTime.values()].filter((point) => point.at <= newest && point.at >= newest - CHART_S);
  return points.sort((one, other) => one.at - other.at);
}
