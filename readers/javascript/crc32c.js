// CRC-32C (Castagnoli, RFC 3720), with which every chunk and every index of a movie ends.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0x82f63b78 : rest >>> 1;
  return rest;
});

/** @returns {number} the checksum of these bytes, an unsigned number of 32 bits */
export function crc32c(bytes) {
  let rest = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) rest = TABLE[(rest ^ bytes[i]) & 255] ^ (rest >>> 8);
  return ~rest >>> 0;
}

/**
 * Take the checksum off the end of a chunk or an index.
 * @param {Uint8Array} bytes - with their crc32c, 4 bytes, little-endian
 * @returns {Uint8Array} a view of the bytes in front of it
 * @throws {Error} if they do not match
 */
export function withoutChecksum(bytes) {
  const end = bytes.length - 4;
  if (end < 0) throw new Error(`damaged chunk: ${bytes.length} bytes cannot end in a crc32c`);
  const content = bytes.subarray(0, end);
  const stored = new DataView(bytes.buffer, bytes.byteOffset + end, 4).getUint32(0, true);
  if (crc32c(content) !== stored) throw new Error("damaged chunk: its bytes do not match the crc32c at their end");
  return content;
}
