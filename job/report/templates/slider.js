const data = JSON.parse(document.getElementById("thresholds").textContent);
const slider = document.getElementById("threshold");
const show = (name, text) => {
  const cell = document.getElementById(name);
  if (cell) cell.textContent = text;
};
const update = () => {
  const at = Number(slider.value);
  const found = data.found[at];
  const isEmpty = !data.recall[at];
  show("at", data.confidence[at].toFixed(2));
  for (const name of ["precision", "recall", "f1"]) {
    show(`at-${name}`, isEmpty && name !== "recall" ? "–" : `${(100 * data[name][at]).toFixed(1)} %`);
  }
  show("at-found", found);
  show("at-missed", data.objects - found);
  show("at-alarms", data.alarms[at]);
  document.querySelector(".cursor").style.setProperty("--at", data.confidence[at]);
};
slider.addEventListener("input", update);
document.querySelector(".slider").hidden = false;
update();
