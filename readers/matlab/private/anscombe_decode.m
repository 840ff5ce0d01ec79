function counts = anscombe_decode(configuration, codes)
% Counts of the codes of a chunk, in C order: docs/spec/anscombe.md, whose names these are.
  t = lay_cells(configuration);
  found = (double(min(codes)):min(double(max(codes)), double(min(codes)) + 65536))';
  row = double(codes(:)) - found(1) + 1;
  if numel(found) > 65536, [found, ~, row] = unique(codes); end  % wide codes: only those that occur
  k = 0;
  level = zeros(numel(codes), 1);
  if t.dithered
    k = 0:63;
    level = levels(numel(codes));
  end
  table = values(t, double(found(:)), k);
  counts = table(sub2ind(size(table), row(:), level(:) + 1));
end

function k = levels(count)
  i = (0:4092)';
  power = ones(4093, 1);
  for n = 1:5, power = mod(power .* i, 4093); end
  k = floor(64 * power / 4093);
  k = k(mod((0:count - 1)', 4093) + 1);
end

function table = values(t, c, k)
  % value(c, k): a row for each code, a column for each level.
  low = edge(t, c);
  high = edge(t, c + 1);
  if ~t.whole
    part = repmat((127 - 2 * k) / 128, numel(c), 1);
    if ~t.dithered, part(:) = 0.5; end
    if ~isempty(t.saturated), part(abs(c - t.saturated) <= 1, :) = 0.5; end
    table = min(max(low + (high - low) .* part, -t.largest), t.largest);
    return
  end
  first = min(max(ceil(low), t.min), t.max);
  width = min(max(ceil(high), t.min), t.max + 1) - max(ceil(low), t.min);
  if any(abs(first) >= 2^53 | width >= 2^46)
    error('photon:range', 'counts beyond 2^53 are not read here');
  end
  if t.dithered
    table = first + floor(width .* (127 - 2 * k) / 128);
  else
    table = first + floor((width - 1 + mod(c, 2)) / 2);
  end
  below = ceil(high) <= t.min;
  above = ceil(low) > t.max;
  table(below, :) = t.min;
  table(above, :) = t.max;
end

function t = lay_cells(configuration)
  t = struct('zero', configuration.zero_level, 'gain', configuration.conversion_gain, 'step', configuration.step, ...
             'under_root', configuration.under_root, 'dithered', strcmp(configuration.dither, 'position'), ...
             'dtype', configuration.decoded_dtype, 'saturation', configuration.saturation, 'saturated', [], ...
             'whole', true, 'min', -Inf, 'max', Inf, 'largest', Inf, 'origin', 0, 'runs', zeros(0, 6));
  [bottom, top] = deal(-Inf, Inf);
  switch t.dtype
    case 'float16'
      error('photon:dtype', 'codes of float16 are not read here: store a copy in float32');
    case {'float32', 'float64'}
      t.whole = false;
      t.largest = realmax();
      if strcmp(t.dtype, 'float32'), t.largest = double(realmax('single')); end
    otherwise
      t.min = double(intmin(t.dtype));
      t.max = double(intmax(t.dtype));
      [bottom, top] = deal(t.min - 0.5, t.max + 0.5);
      if strcmp(t.dtype, 'int64'), bottom = -Inf; end  % and its top, like that of uint64, rounds to a power of 2
  end
  unit = 1;
  if ~t.whole && ~isempty(t.saturation)
    y = max(abs(t.saturation), abs(t.zero));
    [~, exponent] = log2(y);  % y = f * 2^exponent with f from 0.5
    if y == 0, exponent = 0; end
    unit = 2^(exponent - 1 - 23);
  end
  singles = [];
  if t.whole, singles = [bottom + 0.5, bottom + 1.5, top - 1.5, top - 0.5]; end
  if ~isempty(t.saturation), singles = [singles, t.saturation + unit * (-1:1)]; end
  singles = unique(singles(bottom < singles & singles < top & abs(singles) < 2^52));
  low = bottom;
  while ~isempty(singles)
    together = find([diff(singles) > unit, true], 1);
    group = singles(1:together);
    singles = singles(together + 1:end);
    t = lay_between(t, low, group(1) - unit / 2);
    low = group(end) + unit / 2;
    t = add(t, group(1) - unit / 2, unit, 0, together, low);
  end
  t = lay_between(t, low, top);
  zero_cell = cell_of(t, 0);
  single = t.whole && edge(t, zero_cell + 1) - edge(t, zero_cell) <= 1;
  t.origin = zero_cell - (t.dithered && ~single);
  if ~t.whole && ~isempty(t.saturation), t.saturated = cell_of(t, t.saturation); end
end

function t = lay_between(t, low, high)
  if ~(low < high), return, end
  narrow = t.step * (127 / 128);
  width = narrow * t.gain * sqrt(t.under_root);
  dark = 0;
  if t.whole && width < 1
    square = (narrow * t.gain) * (narrow * t.gain);
    border = t.zero + t.gain * (1 / square - t.under_root);
    joint = high;
    if border < high, joint = min(max(ceil(border - 0.5) + 0.5, low), high); end
    width = 1;
  else
    middle = t.zero;
    half = width / 2;
    if t.whole
      middle = rint(t.zero);
      half = floor((width - 1) / 2) + 0.5;
    end
    if low < middle && middle < high, dark = min([half, middle - low, high - middle]); end
    joint = min(max(middle + dark, low), high);
  end
  line = joint - 2 * dark;
  if low == -Inf
    t = add(t, line - width, width, 0, 1, line);
  elseif low < line
    cells = ceil((line - low) / width);
    t = add(t, low, (line - low) / cells, 0, cells, line);
  end
  if dark > 0, t = add(t, line, 2 * dark, 0, 1, joint); end
  if joint < high
    r = sqrt(max((joint - t.zero) / t.gain, 0) + t.under_root);
    wanted = (sqrt(r * r + (high - joint) / t.gain) - r) / (narrow / 2);
    cells = max(ceil(wanted), 1);
    if t.whole, cells = min(cells, floor(high - joint)); end
    t = add(t, joint, t.gain * narrow * r, t.gain * (narrow / 2) * (narrow / 2), cells, high);
  end
end

function t = add(t, start, linear, quadratic, cells, stop)
  number = 0;
  if ~isempty(t.runs), number = t.runs(end, 1) + t.runs(end, 5); end
  t.runs(end + 1, :) = [number, start, linear, quadratic, cells, stop];
end

function e = edge(t, n)
  % The lower edges of cells.
  n = n + t.origin;
  run = ones(size(n));
  for i = 2:size(t.runs, 1), run(t.runs(i, 1) <= n) = i; end
  column = @(i) reshape(t.runs(run, i), size(n));
  m = n - column(1);
  e = column(2) + (column(3) + column(4) .* m) .* m;
  if ~t.whole
    e = min(e, column(6));
  else
    e = floor(min(e, column(6) - (column(5) - m))) + 0.5;
  end
end

function n = cell_of(t, x)
  % The cell that holds a count, by bisection.
  run = find([true; t.runs(2:end, 2) <= x], 1, 'last');
  low = t.runs(run, 1) - t.origin - 1;
  high = low + 2;
  reach = 1;
  while edge(t, low) > x, low = low - reach; reach = 2 * reach; end
  reach = 1;
  while edge(t, high) <= x, high = high + reach; reach = 2 * reach; end
  while high - low > 1
    middle = floor((low + high) / 2);
    if middle == low || middle == high, break, end
    if edge(t, middle) <= x, low = middle; else, high = middle; end
  end
  n = low;
end

function value = rint(value)
  % The nearest whole number, halves to even.
  below = floor(value);
  rest = value - below;
  value = below + (rest > 0.5 || (rest == 0.5 && mod(below, 2) == 1));
end
