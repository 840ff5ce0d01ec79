function [counts, info] = read_photon_movie(folder, first, last)
% READ_PHOTON_MOVIE  Counts of a movie stored by dj-photon-codecs, from a local folder.
%
%   counts = read_photon_movie(folder)               all frames
%   counts = read_photon_movie(folder, first, last)  frames first to last, counted from 1
%   [counts, info] = read_photon_movie(...)          with the movie's metadata
%
%   counts has the data type of the movie and the size [height width ... frames]: counts(:, :, t) is a frame.
%   Values of float16 come as single.
%   info.attributes.dj_photon.calibration has conversion_gain [ADU/photon] and zero_level [ADU].
%
%   Reads the profiles standard, portable and lossless in Zarr 3. Needs the program zstd on the path.
%   A missing or altered chunk is an error; it is never shown as zeros. The format: docs/spec/layout.md.

  info = jsondecode(fileread(fullfile(folder, 'zarr.json')));
  plan = plan_of(folder, info);
  if nargin < 2, first = 1; end
  if nargin < 3, last = plan.shape(1); end
  if ~(1 <= first && first <= last && last <= plan.shape(1) && first == fix(first) && last == fix(last))
    error('photon:frames', 'frames %g to %g: the movie has the frames 1 to %d', first, last, plan.shape(1));
  end
  refuse_lost(plan.record, first, last);

  % The axes of Zarr are reversed here: the last one varies fastest in both.
  extent = plan.shape;
  extent(1) = last - first + 1;
  counts = zeros(fliplr(extent), class_of(plan.dtype));
  index = struct('file', '', 'bytes', []);
  steps = floor((first - 1) / plan.inner(1)):floor((last - 1) / plan.inner(1));
  grid = ceil(plan.shape ./ plan.inner);
  beside = prod(grid(2:end));
  for number = (steps(1) * beside):((steps(end) + 1) * beside - 1)
    place = unravel(number, grid);
    [stored, index] = read_chunk(plan, place, index);
    check_recorded(plan, stored, number);
    chunk = reshape(decode(plan, stored(1:end - 4)), fliplr(plan.inner));
    counts = put(counts, chunk, place .* plan.inner, plan, first, last);
  end
  counts = permute(counts, [2 1 3:ndims(counts)]);
end

function plan = plan_of(folder, info)
  % Shapes, codecs and checksums, from the metadata.
  if ~isfield(info, 'zarr_format') || info.zarr_format ~= 3 || ~strcmp(info.node_type, 'array')
    error('photon:format', '%s is not an array of Zarr 3', folder);
  end
  sharding = item(info.codecs, 1);
  if ~strcmp(sharding.name, 'sharding_indexed')
    error('photon:format', 'the codec %s: expected sharding_indexed', sharding.name);
  end
  plan = struct('folder', folder, 'dtype', info.data_type, 'shape', info.shape(:)', 'record', [], ...
                'shard', info.chunk_grid.configuration.chunk_shape(:)', ...
                'inner', sharding.configuration.chunk_shape(:)', 'checksums', [], 'transform', [], 'compressors', {{}});
  if isfield(info.attributes, 'dj_photon')
    plan.record = info.attributes.dj_photon;
    if plan.record.format_version > 1
      error('photon:version', 'format version %g is newer than this reader', plan.record.format_version);
    end
    if isfield(plan.record, 'checksums')
      plan.checksums = reshape(uint8(matlab.net.base64decode(plan.record.checksums)), 4, []);
      chunks = prod(ceil(plan.shape ./ plan.inner));
      if size(plan.checksums, 2) ~= chunks
        error('photon:damaged', 'the record has %d checksums for %d chunks', size(plan.checksums, 2), chunks);
      end
    end
  end
  codecs = sharding.configuration.codecs;
  for i = 1:numel(codecs)
    codec = item(codecs, i);
    switch codec.name
      case 'dj_photon_codecs.anscombe'
        plan.transform = codec.configuration;
      case {'zstd', 'blosc'}
        plan.compressors{end + 1} = codec.name;
      case {'bytes', 'crc32c'}
        % little-endian, as this machine; the checksum is taken off in read_chunk
      otherwise
        error('photon:codec', ['the codec %s is not read here: store a copy with ' ...
                               'write_movie(path, movie, profile="portable")'], codec.name);
    end
  end
end

function refuse_lost(record, first, last)
  if ~isfield(record, 'lost') || isempty(record.lost), return, end
  lost = reshape(record.lost, [], 2);
  wanted = lost(:, 1) < last & lost(:, 2) >= first;  % in Python's numbers: first frame, and the one behind the last
  if any(wanted)
    error('photon:lost', 'the frame %d was lost before it was stored', max(min(lost(wanted, 1)) + 1, first));
  end
end

function [stored, index] = read_chunk(plan, place, index)
  % The bytes of a chunk with their crc32c, which is right.
  places = plan.shard ./ plan.inner;
  keys = arrayfun(@(k) sprintf('%d', k), floor(place ./ places), 'UniformOutput', false);
  name = fullfile(plan.folder, 'c', keys{:});
  file = fopen(name, 'r');
  if file < 0
    error('photon:missing', 'the shard %s is missing: a part of the movie was lost', name);
  end
  closing = onCleanup(@() fclose(file));
  if ~strcmp(index.file, name)
    length = 16 * prod(places) + 4;
    if fseek(file, -length, 'eof') ~= 0
      error('photon:damaged', 'the shard %s is shorter than its index', name);
    end
    index = struct('file', name, 'bytes', checked(fread(file, length, '*uint8'), name));
  end
  offsets = reshape(typecast(index.bytes(1:end - 4), 'uint64'), 2, []);
  here = offsets(:, ravel(mod(place, places), places) + 1);
  if any(here == intmax('uint64'))
    error('photon:missing', 'a chunk of %s is missing: a part of the movie was lost', name);
  end
  if fseek(file, double(here(1)), 'bof') ~= 0
    error('photon:damaged', 'the shard %s is shorter than its index says', name);
  end
  stored = fread(file, double(here(2)), '*uint8');
  if numel(stored) ~= here(2)
    error('photon:damaged', 'the shard %s is shorter than its index says', name);
  end
  checked(stored, name);
end

function bytes = checked(bytes, name)
  if numel(bytes) < 8 || typecast(bytes(end - 3:end), 'uint32') ~= crc32c(bytes(1:end - 4))
    error('photon:damaged', 'a chunk or the index of %s does not match the crc32c at its end', name);
  end
end

function check_recorded(plan, stored, number)
  if isempty(plan.checksums), return, end
  if ~isequal(stored(end - 3:end), plan.checksums(:, number + 1))
    error('photon:damaged', 'chunk %d is not the one that was recorded: it is from another place or movie', number);
  end
end

function counts = decode(plan, bytes)
  for i = numel(plan.compressors):-1:1
    bytes = decompress(plan.compressors{i}, bytes);
  end
  dtype = plan.dtype;
  if ~isempty(plan.transform), dtype = plan.transform.encoded_dtype; end
  if strcmp(dtype, 'float16')
    error('photon:dtype', 'float16 is not read here: store a copy in float32');
  end
  codes = typecast(bytes(:), class_of(dtype));
  if numel(codes) ~= prod(plan.inner)
    error('photon:damaged', 'a chunk has %d values, expected %d', numel(codes), prod(plan.inner));
  end
  counts = codes;
  if ~isempty(plan.transform)
    counts = cast(anscombe_decode(plan.transform, codes), class_of(plan.dtype));
  end
end

function counts = put(counts, chunk, start, plan, first, last)
  % The part of a chunk that is in the movie and in the wanted frames.
  low = max(start, [first - 1, zeros(1, numel(start) - 1)]);
  high = min(start + plan.inner, [last, plan.shape(2:end)]);
  from = fliplr(arrayfun(@(a, b, s) a - s + 1:b - s, low, high, start, 'UniformOutput', false));
  to = fliplr(arrayfun(@(a, b) a + 1:b, low, high, 'UniformOutput', false));
  to{end} = to{end} - (first - 1);
  counts(to{:}) = chunk(from{:});
end

function name = class_of(dtype)
  switch dtype
    case {'float16', 'float32'}
      name = 'single';
    case 'float64'
      name = 'double';
    otherwise
      name = dtype;
  end
end

function place = unravel(number, grid)
  % Position in C order, from 0.
  place = zeros(size(grid));
  for axis = numel(grid):-1:1
    place(axis) = mod(number, grid(axis));
    number = floor(number / grid(axis));
  end
end

function number = ravel(place, grid)
  number = 0;
  for axis = 1:numel(grid)
    number = number * grid(axis) + place(axis);
  end
end

function value = item(list, i)
  % jsondecode makes an array of structures where all have the same keys, and cells otherwise.
  if iscell(list), value = list{i}; else, value = list(i); end
end
