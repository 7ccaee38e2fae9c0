// One map: points on a canvas that can be moved, zoomed, pointed at, selected and drawn around.

const CELLS = 64;
const REACH = 14;

export class PlaneMap {
  // `events`: hover(point or null), select(point), lasso(points).
  constructor(parent, index, events) {
    this.index = index;
    this.events = events;
    this.count = index.ids.length;
    this.view = { x: 0, y: 0, zoom: 1 };
    this.hovered = null;
    this.selected = null;
    this.shown = null;
    this.lassoing = false;
    const section = document.createElement("section");
    const title = document.createElement("h2");
    title.textContent = index.total > this.count
      ? `${index.name}: ${this.count} of ${index.total} items` : `${index.name}: ${this.count} items`;
    this.plane = document.createElement("div");
    this.plane.className = "plane";
    this.base = document.createElement("canvas");
    this.base.tabIndex = 0;
    this.base.setAttribute("role", "application");
    this.base.setAttribute("aria-label", `Map of ${index.name}. Arrow keys move between points, Enter selects.`);
    this.over = document.createElement("canvas");
    this.over.className = "over";
    this.legend = document.createElement("div");
    this.legend.className = "legend";
    this.plane.append(this.base, this.over, this.legend);
    section.append(title, this.plane);
    parent.append(section);
    new ResizeObserver(() => this.resize()).observe(this.plane);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.listen();
  }

  place(points) {
    this.points = points;
    // Points by cell, so that the nearest one is found among few.
    this.cells = Array.from({ length: CELLS * CELLS }, () => []);
    for (let at = 0; at < this.count; at += 1) {
      this.cells[this.cell(points[2 * at]) + CELLS * this.cell(points[2 * at + 1])].push(at);
    }
    this.draw();
  }

  cell(value) {
    return Math.min(CELLS - 1, Math.max(0, Math.floor(((value + 1) / 2) * CELLS)));
  }

  paint({ palette, numbers }) {
    this.palette = palette;
    this.numbers = numbers;
    this.draw();
  }

  // Only these points are strong; null: all.
  show(points) {
    this.shown = points ? new Set(points) : null;
    this.draw();
  }

  resize() {
    const { width, height } = this.plane.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.max(1, Math.round(width * ratio));
      canvas.height = Math.max(1, Math.round(height * ratio));
    }
    this.width = width;
    this.height = height;
    this.ratio = ratio;
    this.draw();
  }

  scale() {
    return (Math.min(this.width, this.height) / 2 - 12) * this.view.zoom;
  }

  toScreen(at) {
    const scale = this.scale();
    return [this.width / 2 + (this.points[2 * at] - this.view.x) * scale,
      this.height / 2 - (this.points[2 * at + 1] - this.view.y) * scale];
  }

  toPlane(x, y) {
    const scale = this.scale();
    return [(x - this.width / 2) / scale + this.view.x, (this.height / 2 - y) / scale + this.view.y];
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.drawBase();
      this.drawOver();
    });
  }

  drawBase() {
    if (!this.points || !this.palette || !this.width) return;
    const context = this.base.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const radius = Math.min(7, (this.count > 4000 ? 2 : this.count > 1200 ? 2.8 : 3.8) * Math.sqrt(this.view.zoom));
    const groups = [new Map(), new Map()];
    for (let at = 0; at < this.count; at += 1) {
      const group = groups[this.shown && !this.shown.has(at) ? 0 : 1];
      const number = this.numbers[at];
      if (!group.has(number)) group.set(number, []);
      group.get(number).push(at);
    }
    groups.forEach((group, strong) => {
      context.globalAlpha = strong ? 0.85 : 0.12;
      for (const [number, members] of group) {
        context.fillStyle = this.palette[number];
        context.beginPath();
        for (const at of members) {
          const [x, y] = this.toScreen(at);
          if (x < -9 || y < -9 || x > this.width + 9 || y > this.height + 9) continue;
          context.moveTo(x + radius, y);
          context.arc(x, y, radius, 0, 2 * Math.PI);
        }
        context.fill();
      }
    });
    context.globalAlpha = 1;
  }

  drawOver() {
    if (!this.points || !this.width) return;
    const context = this.over.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const ink = getComputedStyle(document.body).color;
    const ring = (at, radius, width) => {
      const [x, y] = this.toScreen(at);
      context.strokeStyle = ink;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    };
    if (this.selected !== null) ring(this.selected, 9, 2.5);
    if (this.hovered !== null) ring(this.hovered, 7, 1.5);
    if (this.path) {
      context.strokeStyle = ink;
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.beginPath();
      this.path.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
  }

  nearest(x, y) {
    const [u, v] = this.toPlane(x, y);
    const reach = REACH / this.scale();
    let best = null;
    let least = reach * reach;
    for (let column = this.cell(u - reach); column <= this.cell(u + reach); column += 1) {
      for (let row = this.cell(v - reach); row <= this.cell(v + reach); row += 1) {
        for (const at of this.cells[column + CELLS * row]) {
          const square = (this.points[2 * at] - u) ** 2 + (this.points[2 * at + 1] - v) ** 2;
          if (square < least) [best, least] = [at, square];
        }
      }
    }
    return best;
  }

  hover(at) {
    if (this.hovered === at) return;
    this.hovered = at;
    this.drawOver();
  }

  select(at) {
    this.selected = at;
    this.drawOver();
  }

  // Where a point is on the page.
  position(at) {
    const bounds = this.plane.getBoundingClientRect();
    const [x, y] = this.toScreen(at);
    return [bounds.left + x, bounds.top + y];
  }

  zoom(factor, x, y) {
    const before = this.toPlane(x, y);
    this.view.zoom = Math.min(60, Math.max(0.5, this.view.zoom * factor));
    const after = this.toPlane(x, y);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.draw();
  }

  reset() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.draw();
  }

  // The next point in a direction: near, and not far off the line.
  step(dx, dy) {
    const from = this.hovered ?? this.selected ?? this.nearestToMiddle();
    if (from === null) return;
    const [x, y] = this.toScreen(from);
    let best = null;
    let least = Infinity;
    for (let at = 0; at < this.count; at += 1) {
      if (at === from) continue;
      const [a, b] = this.toScreen(at);
      const along = (a - x) * dx + (b - y) * dy;
      const across = Math.abs((a - x) * dy - (b - y) * dx);
      if (along > 0.5 && along + 2 * across < least) [best, least] = [at, along + 2 * across];
    }
    if (best !== null) this.events.hover(best);
  }

  nearestToMiddle() {
    let best = null;
    let least = Infinity;
    for (let at = 0; at < this.count; at += 1) {
      const [x, y] = this.toScreen(at);
      const square = (x - this.width / 2) ** 2 + (y - this.height / 2) ** 2;
      if (square < least) [best, least] = [at, square];
    }
    return best;
  }

  listen() {
    const local = (event) => {
      const bounds = this.base.getBoundingClientRect();
      return [event.clientX - bounds.left, event.clientY - bounds.top];
    };
    let from = null;
    let moved = false;
    this.base.addEventListener("pointerdown", (event) => {
      this.base.setPointerCapture(event.pointerId);
      from = local(event);
      moved = false;
      if (this.lassoing || event.shiftKey) this.path = [from];
    });
    this.base.addEventListener("pointermove", (event) => {
      if (!this.points) return;
      const [x, y] = local(event);
      if (!from) {
        this.events.hover(this.nearest(x, y));
        return;
      }
      moved ||= Math.hypot(x - from[0], y - from[1]) > 3;
      if (!moved) return;
      if (this.path) {
        this.path.push([x, y]);
        this.drawOver();
      } else {
        const scale = this.scale();
        this.view.x -= (x - from[0]) / scale;
        this.view.y += (y - from[1]) / scale;
        from = [x, y];
        this.draw();
      }
    });
    this.base.addEventListener("pointerup", (event) => {
      const [x, y] = local(event);
      if (this.path && moved) {
        const inside = this.inside(this.path);
        this.path = null;
        this.drawOver();
        this.events.lasso(inside);
      } else if (!moved && this.points) {
        const at = this.nearest(x, y);
        if (at !== null) this.events.select(at);
      }
      this.path = null;
      from = null;
    });
    this.base.addEventListener("pointercancel", () => { from = null; this.path = null; });
    this.base.addEventListener("pointerleave", () => { if (!from) this.events.hover(null); });
    this.base.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.0015), ...local(event));
    }, { passive: false });
    this.base.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const middle = [this.width / 2, this.height / 2];
    const keys = {
      ArrowLeft: () => this.step(-1, 0),
      ArrowRight: () => this.step(1, 0),
      ArrowUp: () => this.step(0, -1),
      ArrowDown: () => this.step(0, 1),
      Enter: () => { if (this.hovered !== null) this.events.select(this.hovered); },
      "+": () => this.zoom(1.3, ...middle),
      "=": () => this.zoom(1.3, ...middle),
      "-": () => this.zoom(1 / 1.3, ...middle),
    };
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  }

  // Points inside a closed line (even-odd rule).
  inside(path) {
    const found = [];
    for (let at = 0; at < this.count; at += 1) {
      const [x, y] = this.toScreen(at);
      let odd = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a, a += 1) {
        const [ax, ay] = path[a];
        const [bx, by] = path[b];
        if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(at);
    }
    return found;
  }
}
