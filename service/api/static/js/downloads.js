/** Files for the reader to keep. */

import { call } from "./api.js";

/** Keep what a call is answered with; by fetch, so that the key is sent along. */
export async function download(path, name) {
  const answer = await call("GET", path);
  save(await answer.blob(), name);
}

export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
