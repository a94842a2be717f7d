// The page: which view is shown, by the address's hash: #sample, #sample/JOB, #inpaint/JOB, #compare/JOB,JOB, #queue.

import { CompareView } from "./compare.js";
import { byId } from "./dom.js";
import { InpaintView } from "./inpaint.js";
import { KeyDialog } from "./key.js";
import { QueueView } from "./queue.js";
import { SampleView } from "./sample.js";
import { Viewer } from "./viewer.js";

const place = (view) => (job) => history.replaceState(null, "", `#${view}/${job.id ?? job}`);

const inpaint = new InpaintView({
  onJob: place("inpaint"),
  onChoose: (panel, index) => viewer.open(panel, index),
});
const viewer = new Viewer((canvas, job) => {
  location.hash = "#inpaint";
  inpaint.take(canvas, job.model);
});
const views = {
  sample: new SampleView({ onJob: place("sample"), onChoose: (panel, index) => viewer.open(panel, index) }),
  inpaint,
  compare: new CompareView({ onJobs: place("compare"), onChoose: (panel, index) => viewer.open(panel, index) }),
  queue: new QueueView(),
};

new KeyDialog(() => show());

let shown = null;

function show() {
  const [name, argument] = location.hash.slice(1).split("/");
  const current = Object.hasOwn(views, name) ? name : "sample";
  for (const view of Object.keys(views)) {
    byId(view).hidden = view !== current;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${current.charAt(0).toUpperCase()}${current.slice(1)} - scoreserve`;
  if (shown !== current) views[shown]?.close?.();
  shown = current;
  views[current].open(argument || null);
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", show);
show();
