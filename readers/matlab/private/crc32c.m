function result = crc32c(bytes)
% CRC-32C (Castagnoli, RFC 3720) of bytes, as uint32.
%
%   A loop over bytes is slow in this language, so the bytes are laid in columns whose sums are computed side by side.
%   Then the columns are joined: the sum so far is carried over the length of a column by a table.
  persistent table carry
  rows = 512;
  if isempty(table)
    table = byte_table();
    carry = carry_table(table, rows);
  end
  columns = floor(numel(bytes) / rows);
  sums = zeros(1, columns, 'uint32');
  block = reshape(bytes(1:rows * columns), rows, columns);
  for row = 1:rows
    sums = advance(table, sums, uint32(block(row, :)));
  end
  result = intmax('uint32');
  for column = 1:columns
    result = bitxor(carried(carry, result), sums(column));
  end
  for i = rows * columns + 1:numel(bytes)
    result = advance(table, result, uint32(bytes(i)));
  end
  result = bitxor(result, intmax('uint32'));
end

function sums = advance(table, sums, bytes)
  slots = bitand(bitxor(sums, bytes), uint32(255));
  sums = bitxor(reshape(table(double(slots) + 1), size(sums)), bitshift(sums, -8));
end

function table = byte_table()
  table = uint32(0:255);
  for bit = 1:8
    odd = bitand(table, uint32(1)) == 1;
    table = bitshift(table, -1);
    table(odd) = bitxor(table(odd), uint32(2197175160));  % 0x82F63B78
  end
end

function carry = carry_table(table, rows)
  % What each byte of a sum becomes after `rows` bytes of 0.
  carry = zeros(256, 4, 'uint32');
  for byte = 1:4
    sums = bitshift(uint32(0:255), 8 * (byte - 1));
    for row = 1:rows
      sums = advance(table, sums, uint32(0));
    end
    carry(:, byte) = sums;
  end
end

function result = carried(carry, result)
  bytes = double(typecast(result, 'uint8')) + 1;
  result = bitxor(bitxor(carry(bytes(1), 1), carry(bytes(2), 2)), bitxor(carry(bytes(3), 3), carry(bytes(4), 4)));
end
