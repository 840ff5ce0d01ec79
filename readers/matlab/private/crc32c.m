function result = crc32c(bytes)
% CRC-32C (Castagnoli, RFC 3720) of 4 or more bytes, as uint32.
%
%   A loop over bytes is slow in this language. So the bytes are laid in columns, whose sums are computed side by side
%   and then joined in pairs: the sum of the left one is carried over the length of the right one by a table.
  persistent table carry_of_column
  rows = 64;
  if isempty(table)
    table = byte_table();
    carry_of_column = zeros(256, 4, 'uint32');
    for byte = 1:4
      carry_of_column(:, byte) = advance(table, bitshift(uint32(0:255), 8 * (byte - 1)), uint8(0));
    end
    for doubling = 1:log2(rows), carry_of_column = carried(carry_of_column, carry_of_column); end
  end
  columns = 2 ^ max(ceil(log2(numel(bytes) / rows)), 0);
  bytes(1:4) = 255 - bytes(1:4);  % the sum begins with ones
  block = zeros(rows, columns, 'uint8');
  block(end - numel(bytes) + 1:end) = bytes;  % zeros in front change nothing
  sums = zeros(1, columns, 'uint32');
  for row = 1:rows
    sums = advance(table, sums, block(row, :));
  end
  carry = carry_of_column;
  while numel(sums) > 1
    sums = bitxor(carried(carry, sums(1:2:end)), sums(2:2:end));
    carry = carried(carry, carry);
  end
  result = bitxor(sums, intmax('uint32'));
end

function sums = advance(table, sums, bytes)
  % Sums after one more byte each.
  slots = double(bitand(bitxor(sums, uint32(bytes)), 255)) + 1;
  sums = bitxor(table(slots), bitshift(sums, -8));
end

function sums = carried(carry, sums)
  % Sums after as many bytes of 0 as the table is for; of a table, that for twice as many.
  bytes = double(reshape(typecast(sums(:), 'uint8'), 4, [])) + 1;
  joined = bitxor(bitxor(carry(bytes(1, :), 1), carry(bytes(2, :), 2)), ...
                  bitxor(carry(bytes(3, :), 3), carry(bytes(4, :), 4)));
  sums = reshape(joined, size(sums));
end

function table = byte_table()
  table = uint32(0:255);
  for bit = 1:8
    odd = bitand(table, 1) == 1;
    table = bitshift(table, -1);
    table(odd) = bitxor(table(odd), uint32(hex2dec('82F63B78')));
  end
end
