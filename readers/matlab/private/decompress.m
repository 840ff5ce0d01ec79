function bytes = decompress(name, packed)
% Undo `zstd`, or `blosc` with zstd inside; a column of uint8.
  packed = packed(:);
  if strcmp(name, 'zstd')
    bytes = unzstd(packed);
    return
  end
  % The container of c-blosc 1.x: header, starts of the blocks, blocks.
  flags = double(packed(3));
  typesize = double(packed(4));
  sizes = double(typecast(packed(5:16), 'uint32'));
  [total, blocksize] = deal(sizes(1), sizes(2));
  if bitand(flags, 2)
    bytes = packed(17:16 + total);  % stored as they are
    return
  end
  if bitshift(flags, -5) ~= 4
    error('photon:codec', 'a Blosc chunk that is not compressed with zstd is not read here');
  end
  blocks = ceil(total / blocksize);
  starts = double(typecast(packed(17:16 + 4 * blocks), 'int32'));
  parts = {};
  for block = 1:blocks
    room = min(blocksize, total - (block - 1) * blocksize);
    streams = 1;
    if ~bitand(flags, 16) && room == blocksize, streams = typesize; end
    at = starts(block);
    for stream = 1:streams
      count = double(typecast(packed(at + (1:4)), 'int32'));
      parts{end + 1} = struct('packed', packed(at + 4 + (1:count)), 'raw', count == room / streams); %#ok<AGROW>
      at = at + 4 + count;
    end
  end
  bytes = joined(parts);
  if numel(bytes) ~= total
    error('photon:damaged', 'a Blosc chunk has %d bytes, expected %d', numel(bytes), total);
  end
  for start = 0:blocksize:total - 1
    here = start + 1:min(start + blocksize, total);
    bytes(here) = unshuffle(bytes(here), typesize, flags);
  end
end

function bytes = joined(parts)
  % All streams in order; a run of compressed ones is one call of the program.
  raw = cellfun(@(part) part.raw, parts);
  packed = cellfun(@(part) part.packed, parts, 'UniformOutput', false);
  bytes = zeros(0, 1, 'uint8');
  first = 1;
  while first <= numel(parts)
    last = first;
    while last < numel(parts) && raw(last + 1) == raw(first), last = last + 1; end
    run = vertcat(packed{first:last});
    if ~raw(first), run = unzstd(run); end
    bytes = [bytes; run];
    first = last + 1;
  end
end

function bytes = unshuffle(bytes, typesize, flags)
  count = floor(numel(bytes) / typesize);
  whole = bytes(1:count * typesize);
  if bitand(flags, 1) && typesize > 1
    whole = reshape(whole, count, typesize)';
  elseif bitand(flags, 4) && mod(count, 8) == 0
    whole = unshuffled_bits(whole, count, typesize);
  end
  bytes(1:count * typesize) = whole(:);
end

function bytes = unshuffled_bits(bytes, count, typesize)
  % Row by row the bits of all elements: from (8 elements in a byte, bit of a byte, byte of an element).
  packed = reshape(bytes, count / 8, 8, typesize);
  bytes = zeros(typesize, 8, count / 8, 'uint8');
  for element = 1:8
    for bit = 1:8
      found = bitshift(uint8(bitget(packed(:, bit, :), element)), bit - 1);
      bytes(:, element, :) = bytes(:, element, :) + permute(found, [3 2 1]);
    end
  end
end

function bytes = unzstd(packed)
  % One or more frames behind one another, by the program zstd: MATLAB and Octave have no decoder.
  source = [tempname() '.zst'];
  target = [tempname() '.raw'];
  removing = onCleanup(@() cellfun(@remove, {source, target}));
  file = fopen(source, 'w');
  fwrite(file, packed, 'uint8');
  fclose(file);
  [status, said] = system(sprintf('zstd -d -q -f "%s" -o "%s"', source, target));
  if status ~= 0
    error('photon:zstd', 'zstd did not decompress a chunk (is the program zstd installed?): %s', said);
  end
  file = fopen(target, 'r');
  bytes = fread(file, Inf, '*uint8');
  fclose(file);
end

function remove(name)
  if exist(name, 'file'), delete(name); end
end
