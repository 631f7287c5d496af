// The SDK for Headwater modules in AssemblyScript.
//
// A function that cannot give its value rejects the event or sample at hand, which then goes to the
// dead letters with the reason; it gives 0 or an empty text, and nothing that is done afterwards with
// that event has an effect. So there is nothing to check. Event, sample, state and result are good until
// the end of the function they came to. Times are microseconds since the Unix epoch, UTC.
export { reject, log, Level } from "./headwater/call";
export { Settings } from "./headwater/settings";
export { Event, emit, transform } from "./headwater/event";
export { Sample, State, Window, aggregate } from "./headwater/sample";
export { Result } from "./headwater/result";
