// The calls of the world `transform`, which the module's file exports.
import { Rejections, answerFailed, answerWith, begin, initialized, rejected, started } from "./call";
import { EVENT_BYTES, Event, beginOut, cutOut, initWith, outEvents, outSize, processWith } from "./event";
import { Settings } from "./settings";
import { release } from "./memory";
export { cabi_realloc } from "./call";

export function init(data: usize, size: usize): usize {
  Settings.read(data, size, initWith);
  initialized();
  return rejected() ? answerFailed() : answerWith(0, 0);
}

const event = new Event();

export function process(events: usize, count: usize): usize {
  if (!started()) return answerFailed();
  const rejections = Rejections.upTo(count);
  beginOut(count);
  for (let i: usize = 0; i < count; i++) {
    const before = outSize();
    begin();
    Event.over(event, events + i * EVENT_BYTES);
    processWith(event);
    if (!rejected()) continue;
    cutOut(before);
    rejections.add(<u32>i);
  }
  return answerWith(outEvents(), outSize(), rejections.data, rejections.size);
}

export function cabi_post_init(_: usize): void { release(); }
export function cabi_post_process(_: usize): void { release(); }
