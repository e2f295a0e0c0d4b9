// Keeps the overview's figures up to date. Without it, they are those of when the page was loaded.
"use strict";

const EVERY = 5000; // milliseconds
const from = document.querySelector("[data-live]").dataset.live;

async function refresh() {
  if (document.hidden) return;
  const response = await fetch(from, { headers: { Accept: "application/json" } });
  if (!response.ok || response.redirected) return clearInterval(timer); // signed out
  const { texts, rows } = await response.json();
  for (const each of document.querySelectorAll("[data-text]")) {
    const text = texts[each.dataset.text];
    if (each.textContent !== text) each.textContent = text;
  }
  for (const each of document.querySelectorAll("[data-points]")) each.setAttribute("points", texts[each.dataset.points]);
  const body = document.querySelector("[data-rows=sessions]");
  if (!body.contains(document.activeElement)) body.innerHTML = rows; // as the page itself: escaped by the server
}

const timer = setInterval(() => refresh().catch(() => {}), EVERY); // offline: try again
