// What the author of a Headwater module in AssemblyScript uses.
//
// A call that cannot give what it should rejects the event or sample at hand, which then goes to the
// dead letters with the reason; what is done with it afterwards has no effect. So there is nothing
// to check. Event, sample, state and result are good until the end of the function they came to.
export { reject, log, Level } from "./headwater/call";
export { Settings } from "./headwater/settings";
export { Event, emit, transform } from "./headwater/event";
export { Sample, State, Window, aggregate } from "./headwater/sample";
export { Result } from "./headwater/result";
