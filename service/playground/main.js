// The page: which view is shown, by the address's hash: #sample, #sample/JOB, #inpaint/JOB, #upscale/JOB, #compare/JOB,JOB, #plane, #queue.

import { CompareView } from "./views/compare.js";
import { byId } from "./parts/dom.js";
import { Gallery } from "./parts/gallery.js";
import { InpaintView } from "./views/inpaint.js";
import { KeyDialog } from "./parts/key.js";
import { PlaneView } from "./views/plane.js";
import { QueueView } from "./views/queue.js";
import { SampleView } from "./views/sample.js";
import { UpscaleView } from "./views/upscale.js";
import { Viewer } from "./parts/viewer.js";

const addresses = {}; // of what each view shows
const WITH_GALLERY = ["sample", "inpaint", "upscale"];
const gallery = new Gallery(byId("gallery"));

/** What a view tells: the ids of its jobs go into the address, an image that was chosen into the viewer. */
const listeners = (view) => ({
  onJob: (ids) => {
    addresses[view] = `#${view}/${ids}`;
    history.replaceState(null, "", addresses[view]);
    gallery.look();
  },
  onState: (job) => job.ended_at && gallery.look(),
  onChoose: (panel, index) => viewer.open(panel, index),
});

const inpaint = new InpaintView(listeners("inpaint"));
const viewer = new Viewer((canvas, job) => {
  location.hash = "#inpaint";
  inpaint.take(canvas, job.model);
});
const views = {
  sample: new SampleView(listeners("sample")),
  inpaint,
  upscale: new UpscaleView(listeners("upscale")),
  compare: new CompareView(listeners("compare")),
  plane: new PlaneView(),
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
  gallery.shown = WITH_GALLERY.includes(current);
  if (!argument && addresses[current]) history.replaceState(null, "", addresses[current]);
  views[current].open(argument || null);
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", show);
show();
