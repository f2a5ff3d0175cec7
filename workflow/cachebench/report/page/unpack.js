// What the page holds packed (zlib in base64) is unpacked: first the leaderboard, the data and the scripts, in their order. The
// library of the charts and the tables of the runs, which are further down, come when there is nothing else to do.
"use strict";

async function unpack(packed) {
  const signs = atob(packed.textContent), bytes = new Uint8Array(signs.length);
  for (let i = 0; i < signs.length; i++) bytes[i] = signs.charCodeAt(i);
  const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  if (packed.dataset.packed === "html") packed.outerHTML = text;
  else packed.replaceWith(Object.assign(document.createElement("script"), { type: packed.dataset.packed, id: packed.id, textContent: text }));
}

(async () => {
  const all = [...document.querySelectorAll("script[data-packed]")], last = all.filter(packed => packed.closest(".run"));
  last.unshift(document.getElementById("plotly"));
  for (const packed of all.filter(packed => !last.includes(packed))) await unpack(packed);
  document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds after the page was asked for
  for (const packed of last) {
    await new Promise(done => (window.requestIdleCallback ?? setTimeout)(done));
    await unpack(packed);
    if (packed === last[0]) dispatchEvent(new Event("plotly"));
  }
  document.documentElement.dataset.whole = "";
})();
