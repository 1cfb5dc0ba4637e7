"use strict";
for (const box of document.querySelectorAll(".settling")) {
  const slider = box.querySelector("input"), said = box.querySelector("output"), button = box.querySelector("button");
  const positions = JSON.parse(box.dataset.positions);
  const films = [...box.querySelectorAll(".film")].map(film => ({
    film, frames: JSON.parse(film.dataset.frames), height: Number(film.dataset.height), width: film.viewBox.baseVal.width,
  }));
  const cursors = [...box.querySelectorAll(".cursor")].map(line => ({ line, places: line.dataset.places.split(",") }));
  let timer = 0;
  function show() {
    const at = Number(slider.value);
    said.textContent = positions[at];
    slider.setAttribute("aria-valuetext", positions[at]);
    for (const { film, frames, height, width } of films)
      film.setAttribute("viewBox", `0 ${frames[at] * height} ${width} ${height}`);
    for (const { line, places } of cursors) {
      line.setAttribute("x1", places[at]);
      line.setAttribute("x2", places[at]);
    }
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  }
  slider.addEventListener("input", () => { stop(); show(); });
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    show();
    button.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (slider.value === slider.max) stop();
    }, 300);
  });
  show();
}
function reachable() {
  for (const each of document.querySelectorAll(".wide")) {
    if (each.scrollWidth > each.clientWidth) {
      each.tabIndex = 0;
      each.setAttribute("role", "region");
      each.setAttribute("aria-label", each.querySelector("caption")?.textContent ?? "Commands");
    } else {
      each.removeAttribute("tabindex");
      each.removeAttribute("role");
      each.removeAttribute("aria-label");
    }
  }
}
reachable();
addEventListener("resize", reachable);
addEventListener("toggle", reachable, true);
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
const live = document.body.dataset.live;
if (live) setInterval(async () => {
  const said = document.querySelector(".live");
  try {
    const answer = await fetch("state", { cache: "no-store" });
    if (answer.ok && (await answer.text()) !== live) location.reload();
  } catch {
    said.textContent = "The server of this page has ended: start `eqprop report RUN --live` again.";
  }
}, 2000);
