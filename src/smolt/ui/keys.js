// One key for each choice of the tab that is shown; what is typed into a field is typed, Escape stops everywhere.
document.addEventListener("keydown", (event) => {
  const chosen = { 1: "left", ArrowLeft: "left", l: "left", 2: "right", ArrowRight: "right", r: "right", 0: "tie",
    t: "tie", b: "bad", s: "skip", u: "undo", Escape: "stop" }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target;
  const typing = field.matches("textarea, select, input:not([type=radio]):not([type=checkbox]), [role=tab], [contenteditable=true]");
  const list = field.closest(".list");
  if (list && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const all = [...list.querySelectorAll("input")];
    const next = all[all.indexOf(field) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { next.focus(); next.click(); }
    event.preventDefault();
    return;
  }
  if (event.key === "Enter" && !event.shiftKey && field.closest("#arena-question")) setTimeout(() => field.blur(), 50);
  if (!chosen || (typing && chosen !== "stop")) return;
  const button = [...document.querySelectorAll(`.key-${chosen}`)].find((one) => one.offsetParent && !one.disabled);
  if (button) { event.preventDefault(); button.click(); }
});
