/** Work that is done again and again, while somebody can see the page. */

/** Do it now and every so many milliseconds; a hidden page waits, and catches up when it is seen again. */
export function whileSeen(everyMs, work) {
  let timer = null;
  let working = false;
  const turn = async () => {
    clearTimeout(timer);
    if (document.hidden || working) return;
    working = true;
    try {
      await work();
    } finally {
      working = false;
      timer = setTimeout(turn, everyMs);
    }
  };
  document.addEventListener("visibilitychange", turn);
  turn();
}
