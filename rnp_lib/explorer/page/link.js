// Talking to Python. One event is under way at a time, and of those that wait, the last move of a
// slider takes the place of the ones before it.

export class Link {
  /** `page` is told by `started`, and by `answered(answer, bytes, mine)`, as others' answers are. */
  constructor(model, page) {
    this.me = Math.random().toString(36).slice(2);
    this.model = model;
    this.page = page;
    this.waiting = [];
    this.busy = false;
    this.receive = this.receive.bind(this);
    model.on("msg:custom", this.receive);
  }

  close() {
    this.model.off("msg:custom", this.receive);
  }

  /** Send {do: name, ...} with bytes `content`; it takes the place of a waiting one of its `merge`. */
  ask(event, { content, merge } = {}) {
    const old = merge ? this.waiting.findIndex((item) => item.merge === merge) : -1;
    if (old >= 0) this.waiting.splice(old, 1);
    this.waiting.push({ event, content, merge });
    this.pump();
  }

  pump() {
    if (this.busy || !this.waiting.length) return;
    const { event, content } = this.waiting.shift();
    this.busy = true;
    this.page.started();
    this.model.send({ ...event, id: this.me }, undefined, content ? [content] : []);
  }

  receive(answer, buffers) {
    const mine = answer.id === this.me;
    if (mine) this.busy = false;
    const data = buffers?.length ? new Uint8Array(buffers[0].buffer ?? buffers[0],
      buffers[0].byteOffset ?? 0, buffers[0].byteLength) : null;
    this.page.answered(answer, data, mine);
    if (mine) this.pump();
  }
}
