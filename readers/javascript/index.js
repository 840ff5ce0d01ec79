export { Anscombe } from "./anscombe.js";
export { InvalidPayload, decode as decodeRans } from "./rans.js";
