/** What the page knows, by name, and who is told when it changes.
 *
 * health: {state, checks}                 stream: {state, seconds, why}      limits: {name: number}
 * durable: boolean                        samples: [sample], see metrics.js  facts: {version, device, started}
 * samples-problem: why there is no newer  theme, language: names             key: "given" or "wanted"
 * models: {items, search, order, cursors, next, read}, see models.js         opened: a model that a row opened
 * jobs: Map of id to job, see jobs.js     jobs-read: true once they are      lines: "curl", "python" or "cli"
 * drawn: Set of ids of the jobs that the reader chose for the chart, or null  drawing: {log, smoothing}
 */

const values = new Map();
const watchers = new Map();

export function get(name) {
  return values.get(name);
}

/** Put a value in its place, and tell those who watch it, once for all changes of one turn. */
export function set(name, value) {
  values.set(name, value);
  for (const watcher of watchers.get(name) ?? []) due.add(watcher);
  if (due.size && !waiting) {
    waiting = true;
    queueMicrotask(tell);
  }
}

/** Call `watcher` after any of the named values has changed. */
export function watch(names, watcher) {
  for (const name of names) {
    if (!watchers.has(name)) watchers.set(name, new Set());
    watchers.get(name).add(watcher);
  }
}

const due = new Set();
let waiting = false;

function tell() {
  waiting = false;
  const told = [...due];
  due.clear();
  for (const watcher of told) {
    try {
      watcher();
    } catch (error) {
      reportError(error); // so that the others are told
    }
  }
}
