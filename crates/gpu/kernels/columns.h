// Columns, rows in question, and predicates.
#ifndef TIDELOG_COLUMNS_H
#define TIDELOG_COLUMNS_H
#include "platform.h"
#include "scan.h"

// How the values of a column lie. Of `encoding` there is one so far, 0: as in an Arrow buffer.
enum { KIND_BIT, KIND_I8, KIND_I16, KIND_I32, KIND_I64, KIND_U8, KIND_U16, KIND_U32, KIND_U64,
       KIND_F32, KIND_F64, KIND_PIECE };

typedef struct {
  u64 data;      // values, or of KIND_PIECE one image for each piece
  u64 valid;     // one bit for each value (of KIND_PIECE for each piece), or 0 if there are no nulls
  u32 kind;
  u32 encoding;
} Column;

// The rows in question, in the order in which they lie: pieces of consecutive rows, none of them empty,
// each of one key. Rows in question have a place, counted from 0.
typedef struct {
  u64 piece_row;    // const u32*: the first row of each piece
  u64 piece_place;  // const u32*: its place; one more at the end, the number of places
  u64 columns;      // const Column*
  u64 program;      // const Step*
  u32 pieces;
  u32 places;
  u32 steps;        // of the program; without any, every row is kept
  u32 unused;
} Rows;

// A program decides on rows as a stack machine does. Where a value is missing a test is false, whether negated
// or not: conditions come here without NOT, so that unknown and false lead to the same rows.
enum { STEP_AND, STEP_OR, STEP_NULL, STEP_RANGE, STEP_CODES, STEP_IMAGES, STEP_PIECES };

typedef struct {
  u32 op;
  u32 column;
  u32 negated;
  u32 unused;
  u64 low;   // RANGE: least image; CODES, PIECES: const u32* bits; IMAGES: const i64*, ascending
  u64 high;  // RANGE: greatest image; CODES: how many bits; IMAGES: how many
} Step;

INLINE u32 bit_at(u64 bits, u32 place) { return (AT(const u32, bits)[place / 32u] >> (place % 32u)) & 1u; }

INLINE u32 is_valid(const Column* column, u32 row, u32 piece) {
  return !column->valid || bit_at(column->valid, column->kind == KIND_PIECE ? piece : row);
}

INLINE i64 image_of_f64(u64 bits) { return (i64)(bits ^ (((i64)bits >> 63) ? 0x7fffffffffffffffull : 0ull)); }
INLINE double f64_of_image(i64 image) { return bits_to_f64((u64)image_of_f64((u64)image)); }
INLINE i64 image_of_f32(u32 bits) { return (i64)(i32)(bits ^ (((i32)bits >> 31) ? 0x7fffffffu : 0u)); }
INLINE float f32_of_image(i64 image) { return bits_to_f32((u32)image_of_f32((u32)(i32)image)); }

// The value's image: a 64-bit integer that orders as the values do, floats by totalOrder.
INLINE i64 image_at(const Column* column, u32 row, u32 piece) {
  switch (column->kind) {
    case KIND_BIT: return (i64)bit_at(column->data, row);
    case KIND_I8: return (i64)AT(const i8, column->data)[row];
    case KIND_I16: return (i64)AT(const i16, column->data)[row];
    case KIND_I32: return (i64)AT(const i32, column->data)[row];
    case KIND_I64: return AT(const i64, column->data)[row];
    case KIND_U8: return (i64)AT(const u8, column->data)[row];
    case KIND_U16: return (i64)AT(const u16, column->data)[row];
    case KIND_U32: return (i64)AT(const u32, column->data)[row];
    case KIND_U64: return (i64)(AT(const u64, column->data)[row] ^ 0x8000000000000000ull);
    case KIND_F32: return image_of_f32(AT(const u32, column->data)[row]);
    case KIND_F64: return image_of_f64(AT(const u64, column->data)[row]);
    default: return AT(const i64, column->data)[piece];
  }
}

// The piece that has this place, which is below `places`.
INLINE u32 piece_of(const Rows* rows, u32 place) {
  const u32* at = AT(const u32, rows->piece_place);
  u32 low = 0, high = rows->pieces;
  while (high - low > 1u) {
    u32 middle = low + (high - low) / 2u;
    if (at[middle] <= place) low = middle; else high = middle;
  }
  return low;
}

// The same, where the piece of a lower place is known and near.
INLINE u32 piece_from(const Rows* rows, u32 piece, u32 place) {
  const u32* at = AT(const u32, rows->piece_place);
  while (at[piece + 1u] <= place) ++piece;
  return piece;
}

INLINE u32 row_of(const Rows* rows, u32 piece, u32 place) {
  return AT(const u32, rows->piece_row)[piece] + (place - AT(const u32, rows->piece_place)[piece]);
}

// Rows that a lane decides on at once, so that reading a step of the program is shared.
#define TOGETHER 8u
// Consecutive places of a warp, and of a block: lane n has every 32nd from the n-th on.
#define STRIP (TOGETHER * WARP)
#define TILE (STRIP * WARPS)

#define LOAD_ALL(Type, expression)                           \
  UNROLL for (u32 i = 0; i < TOGETHER; ++i) {                \
    if (!((wanted >> i) & 1u)) continue;                     \
    Type value = AT(const Type, column->data)[row[i]];       \
    images[i] = (expression);                                \
  }                                                          \
  break;

// The images of the wanted rows, of at most TOGETHER; which of these have a value.
//
// The kind is looked at once, so that the loads of all rows are under way together.
INLINE u32 load_images(const Column* column, const u32* row, const u32* piece, u32 wanted, i64* images) {
  switch (column->kind) {
    case KIND_I8: LOAD_ALL(i8, (i64)value)
    case KIND_I16: LOAD_ALL(i16, (i64)value)
    case KIND_I32: LOAD_ALL(i32, (i64)value)
    case KIND_I64: LOAD_ALL(i64, value)
    case KIND_U8: LOAD_ALL(u8, (i64)value)
    case KIND_U16: LOAD_ALL(u16, (i64)value)
    case KIND_U32: LOAD_ALL(u32, (i64)value)
    case KIND_U64: LOAD_ALL(u64, (i64)(value ^ 0x8000000000000000ull))
    case KIND_F32: LOAD_ALL(u32, image_of_f32(value))
    case KIND_F64: LOAD_ALL(u64, image_of_f64(value))
    case KIND_BIT:
      UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
        if ((wanted >> i) & 1u) images[i] = (i64)bit_at(column->data, row[i]);
      }
      break;
    default:
      UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
        if ((wanted >> i) & 1u) images[i] = AT(const i64, column->data)[piece[i]];
      }
  }
  if (!column->valid) return wanted;
  u32 valid = 0;
  UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
    if ((wanted >> i) & 1u) valid |= is_valid(column, row[i], piece[i]) << i;
  }
  return valid;
}

INLINE u32 is_one_of(i64 image, const i64* images, u64 count) {
  u64 low = 0, high = count;
  while (low < high) {
    u64 middle = low + (high - low) / 2u;
    if (images[middle] < image) low = middle + 1u; else high = middle;
  }
  return low < count && images[low] == image;
}

// One step that looks at a column: the bits of the rows that meet it.
INLINE u32 decide_column(const Rows* rows, const Step* step, const u32* row, const u32* piece, u32 wanted) {
  const Column column = AT(const Column, rows->columns)[step->column];
  i64 images[TOGETHER];
  u32 valid = load_images(&column, row, piece, wanted, images), holds = 0;
  if (step->op == STEP_NULL) return step->negated ? valid : wanted & ~valid;
  UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
    if (!((valid >> i) & 1u)) continue;
    i64 image = images[i];
    u32 hold;
    if (step->op == STEP_RANGE) {
      i64 greatest = (i64)step->high;
      hold = (i64)step->low <= image && (PLANTED(BUG_BOUND) ? image < greatest : image <= greatest);
    } else if (step->op == STEP_CODES) {
      hold = (u64)image < step->high && bit_at(step->low, (u32)image);
    } else {
      hold = is_one_of(image, AT(const i64, step->low), step->high);
    }
    holds |= hold << i;
  }
  if (PLANTED(BUG_NULL_IS_FALSE)) valid = wanted;
  return step->negated ? valid & ~holds : holds;
}

// Which of the wanted rows, of at most TOGETHER, the program keeps.
//
// The stack is two words, a byte for each entry: the host sees to it that sixteen suffice.
INLINE u32 keep_rows(const Rows* rows, const u32* row, const u32* piece, u32 wanted) {
  u64 low = 0, high = 0;
  if (!rows->steps) return wanted;
  for (u32 s = 0; s < rows->steps; ++s) {
    const Step step = AT(const Step, rows->program)[s];
    if (step.op == STEP_AND || step.op == STEP_OR) {
      u64 top = low & 0xffull;
      low = low >> 8 | high << 56;
      high >>= 8;
      low = step.op == STEP_AND ? low & (~0xffull | top) : low | top;
      continue;
    }
    u32 holds = 0;
    if (step.op == STEP_PIECES) {
      UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
        if ((wanted >> i) & 1u) holds |= bit_at(step.low, piece[i]) << i;
      }
    } else {
      holds = decide_column(rows, &step, row, piece, wanted);
    }
    high = high << 8 | low >> 56;
    low = low << 8 | holds;
  }
  return (u32)low & wanted;
}

#endif
