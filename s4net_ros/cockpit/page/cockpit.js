// Draws what the cockpit's server sends. A message is: length of the JSON (4 bytes), JSON, pictures one after the other.
"use strict";

const CURVES = [
  ["Loss", [["loss", "L"], ["loss_source", "L_S"], ["loss_geometric", "L_G"]]],
  ["Agreement", [["agreement", "current"], ["base_agreement", "base model"]]],
  ["Held-out score", [["score", "current"], ["base_score", "base model"]]],
  ["Source mIoU", [["source_miou", "current"], ["base_source_miou", "base model"]]],
  ["Labels per second", [["labels_per_second", "labels/s"]]],
];
const COLORS = ["#5b7ce6", "#e5862d", "#2f9e69"];
const AGAIN_MS = 1000;
const known = {};
let socket = null;

const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name);
const plain = (value, digits = 3) => value == null ? "–" : typeof value === "number" && !Number.isInteger(value)
  ? value.toFixed(digits) : String(value);
const percent = value => value == null ? "–" : (100 * value).toFixed(1) + " %";

// The connection. A hidden tab does not look, so that the robot makes no pictures for it.

function connect() {
  if (socket || document.hidden) return;
  const mine = socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  mine.binaryType = "arraybuffer";
  mine.onopen = () => { if (socket === mine) document.body.classList.remove("away"); };
  mine.onmessage = async event => {
    try {
      await take(event.data);
    } finally {
      if (mine.readyState === WebSocket.OPEN) mine.send("drawn");
    }
  };
  mine.onclose = () => {
    if (socket !== mine) return;
    socket = null;
    document.body.classList.add("away");
    setTimeout(connect, AGAIN_MS);
  };
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && socket) {
    const old = socket;
    socket = null;
    old.close();
  }
  connect();
});

async function take(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const values = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let start = 4 + length;
  const images = {};
  for (const [name, size] of Object.entries(values.pictures)) {
    images[name] = await createImageBitmap(new Blob([new Uint8Array(buffer, start, size)]));
    start += size;
  }
  Object.assign(known, values);
  for (const name of Object.keys(values)) SHOW[name]?.(values[name]);
  for (const [name, image] of Object.entries(images)) paint($(name), image);
}

function paint(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
  image.close();
}

// What is shown of each value.

const SHOW = {
  status(status) {
    for (const name of ["state", "version", "step", "keyframes"]) $(name).textContent = plain(status[name]);
    $("state").title = status.reason || status.last_refusal || "";
    $("pairs").textContent = `${status.pairs} pairs teach each other, ${status.pairs_refused} are refused.`;
    if (known.versions) SHOW.versions(known.versions);
  },
  frame(frame) {
    $("changed").textContent = percent(frame.changed);
    rows("classes", (frame.classes || []).map(one =>
      [swatch(one.color), one.name, `${percent(one.before)} → ${percent(one.after)}`]));
  },
  note: text => { $("note").textContent = text; },
  action(action) {
    $("action").className = action.state;
    $("action").textContent = `${action.name}: ${action.state === "running" ? "waiting for the running step" : action.text}`;
  },
  versions(versions) {
    const serves = known.status?.version;
    let marked = false;
    rows("versions", versions.map(one => [
      String(one.version), new Date(1000 * one.since).toLocaleTimeString(), plain(one.agreement),
      plain(one.source_miou),
    ]), i => {
      if (marked || versions[i].version !== serves) return "";
      marked = true;
      return "serves";
    });
  },
  drops: drops => rows("drops", drops.map(one => [one.node, one.reason, String(one.count), one.remedy])),
  nodes: nodes => rows("nodes", Object.entries(nodes).map(([name, one]) => [name, one.message]),
    i => Object.values(nodes)[i].level),
  curves(curves) {
    const times = curves.time;
    $("rate").textContent = plain(curves.labels_per_second.at(-1), 1);
    CURVES.forEach(([, lines], i) => draw($("curves").children[i].querySelector("canvas"), times,
      lines.map(([name]) => curves[name])));
    $("curves").dataset.points = times.length;
    $("curves").dataset.latest = times.at(-1);
  },
  map: drawMap,
};

function swatch(color) {
  const box = document.createElement("span");
  box.className = "swatch";
  box.style.setProperty("--c", color);
  return box;
}

function rows(id, cells, classOf = () => "") {
  $(id).tBodies[0].replaceChildren(...cells.map((row, i) => {
    const line = document.createElement("tr");
    line.className = classOf(i);
    for (const cell of row) line.appendChild(document.createElement("td")).append(cell);
    return line;
  }));
}

// Curves and the map, on canvases whose pixels are those of the screen.

function fresh(canvas) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, sans-serif";
  return [pen, width, height];
}

function draw(canvas, times, lines) {
  const [pen, width, height] = fresh(canvas), left = 44, bottom = height - 18, top = 8, right = width - 8;
  const values = lines.flat().filter(value => value != null);
  pen.fillStyle = css("--soft");
  if (!values.length) {
    pen.fillText("not measured yet", left, height / 2);
    return;
  }
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
  [low, high] = [low < 0 ? low - margin : Math.max(low - margin, 0), high + margin];
  const span = Math.max(times.at(-1) - times[0], 1);
  const x = time => left + (right - left) * (time - times[0]) / span;
  const y = value => bottom - (bottom - top) * (value - low) / (high - low);
  pen.strokeStyle = css("--edge");
  for (const share of [0, 0.5, 1]) {
    const value = low + share * (high - low);
    pen.beginPath();
    pen.moveTo(left, y(value));
    pen.lineTo(right, y(value));
    pen.stroke();
    pen.fillText(value.toPrecision(3), 2, y(value) + 4);
  }
  pen.fillText(new Date(1000 * times[0]).toLocaleTimeString(), left, height - 4);
  const now = new Date(1000 * times.at(-1)).toLocaleTimeString();
  pen.fillText(now, right - pen.measureText(now).width, height - 4);
  lines.forEach((line, i) => {
    pen.strokeStyle = COLORS[i];
    pen.lineWidth = 1.6;
    pen.beginPath();
    let drawing = false;
    line.forEach((value, k) => {
      if (value == null) { drawing = false; return; }
      if (drawing) pen.lineTo(x(times[k]), y(value));
      else pen.moveTo(x(times[k]) - 1, y(value)), pen.lineTo(x(times[k]), y(value));
      drawing = true;
    });
    pen.stroke();
  });
}

function drawMap({keyframes, refused}) {
  const [pen, width, height] = fresh($("map")), margin = 24;
  $("map").dataset.keyframes = keyframes.length;
  if (!keyframes.length) return;
  const xs = keyframes.map(one => one[0]), ys = keyframes.map(one => one[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = Math.min((width - 2 * margin) / Math.max(x1 - x0, 1), (height - 2 * margin) / Math.max(y1 - y0, 1));
  const x = value => width / 2 + scale * (value - (x0 + x1) / 2), y = value => height / 2 - scale * (value - (y0 + y1) / 2);
  pen.strokeStyle = "#e5484d";
  for (const [ax, ay, bx, by] of refused) {
    pen.beginPath();
    pen.moveTo(x(ax), y(ay));
    pen.lineTo(x(bx), y(by));
    pen.stroke();
  }
  for (const [px, py, dx, dy, color] of keyframes) {
    pen.fillStyle = pen.strokeStyle = color;
    pen.beginPath();
    pen.arc(x(px), y(py), 4, 0, 2 * Math.PI);
    pen.fill();
    pen.beginPath();
    pen.moveTo(x(px), y(py));
    pen.lineTo(x(px) + 14 * dx, y(py) - 14 * dy);
    pen.stroke();
  }
  pen.fillStyle = pen.strokeStyle = css("--soft");
  pen.fillRect(8, height - 8, scale, 1.5);
  pen.fillText("1 m", 8, height - 12);
}

for (const [title, lines] of CURVES) {
  const box = $("curves").appendChild(document.createElement("div")), head = document.createElement("h2");
  head.textContent = title;
  lines.forEach(([, label], i) => {
    const key = head.appendChild(document.createElement("span"));
    key.textContent = label;
    key.style.setProperty("--c", COLORS[i]);
  });
  const canvas = document.createElement("canvas");
  box.append(head, canvas);
}
$("slider").oninput = event => $("stack").style.setProperty("--cut", event.target.value + "%");
for (const button of document.querySelectorAll("button")) {
  button.onclick = () => {
    if (button.dataset.sure && !confirm(button.dataset.sure)) return;
    if (socket?.readyState === WebSocket.OPEN) socket.send(button.dataset.do);
  };
}
connect();
