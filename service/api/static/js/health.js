/** Whether the service is well: asked by its probes, and told by its stream when it leaves. */

import { call, Problem } from "./api.js";
import { get, set } from "./store.js";
import { whileSeen } from "./seen.js";

const EVERY_MS = 5_000;

export function watchHealth() {
  whileSeen(EVERY_MS, async () => set("health", await look()));
}

/** The stream said that the service shuts down. */
export function isLeaving() {
  set("health", { state: "draining", checks: {} });
}

async function look() {
  try {
    const ready = await (await call("GET", "/readyz?verbose")).json();
    return { state: "ready", checks: ready.checks };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status !== 503) return { state: (await alive()) ? "not-ready" : down(), checks: {} };
    const { draining, workers, storage } = error.body;
    return { state: draining && draining !== "ok" ? "draining" : "not-ready", checks: { draining, workers, storage } };
  }
}

/** A service that said it would leave, and has, is not called broken. */
function down() {
  return ["draining", "left"].includes(get("health")?.state) ? "left" : "down";
}

async function alive() {
  try {
    await call("GET", "/livez");
    return true;
  } catch {
    return false;
  }
}
