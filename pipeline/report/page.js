// What is pointed at says what it is; in the lineage, the rest steps back.
const tip = document.getElementById("tip");
document.addEventListener("pointerover", (event) => {
  const over = event.target.closest("[data-tip]");
  tip.style.display = over ? "block" : "none";
  if (!over) return;
  tip.textContent = over.dataset.tip;
  const at = over.getBoundingClientRect();
  const left = Math.min(at.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, at.top - tip.offsetHeight - 6)}px`;
});

const links = [...document.querySelectorAll(".link")];
const boxes = [...document.querySelectorAll(".box")];
for (const box of boxes) {
  const name = box.dataset.box;
  box.addEventListener("pointerenter", () => {
    const near = links.filter((link) => link.dataset.source === name || link.dataset.target === name);
    const kept = new Set([name, ...near.flatMap((link) => [link.dataset.source, link.dataset.target])]);
    for (const link of links) link.classList.add(near.includes(link) ? "near" : "far");
    for (const other of boxes) if (!kept.has(other.dataset.box)) other.classList.add("far");
  });
  box.addEventListener("pointerleave", () => {
    for (const each of [...links, ...boxes]) each.classList.remove("near", "far");
  });
}

// A link from a chart to a run opens what is told of it.
const open = () => {
  const there = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (there instanceof HTMLDetailsElement) there.open = true;
};
addEventListener("hashchange", open);
open();
