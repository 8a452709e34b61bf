// Filter and aggregation in one pass over rows that lie by key and time.
//
// Rows of one group lie together: a *run* is of one piece and one bucket. Each warp adds up a strip of
// consecutive places. What belongs to a run that begins in the strip goes to the run's record, which no other
// warp writes; what comes before, the strip's *lead*, is added to the run that goes on there: within a tile
// at once, from tile to tile by a second kernel. Every sum has its fixed place in a fixed tree, so that the
// same rows give the same bits, and no float is added atomically.
#include "columns.h"
#include "scan.h"

#define SLOTS_MAX 2u

// A record: piece, beginning of the bucket, rows kept, then for each slot these.
enum { WORD_PIECE, WORD_BUCKET, WORD_ROWS, WORD_SLOTS };
enum { SLOT_COUNT, SLOT_SUM, SLOT_REST, SLOT_LEAST, SLOT_GREATEST, SLOT_WORDS };
#define RECORD_WORDS(slots) (WORD_SLOTS + (slots) * SLOT_WORDS)

typedef struct {
  Rows rows;
  u64 times;        // const i64*
  u64 records;      // u64*: of runs
  u64 leads;        // u64*: records of what belongs to a run that begins in an earlier tile, for each tile
  u64 tile_runs;    // u32*: how many runs begin before each tile
  u64 status;       // u64*: one for each tile, zeros
  u64 ticket;       // u32*: zero
  u64 run_count;    // u64*: how many runs there are in all
  i64 origin;
  u64 width;        // of a bucket, or 0 if there are none
  u32 first;        // the range of places that is looked at
  u32 end;
  u32 capacity;     // records that there is room for; those beyond are not written
  u32 by_piece;     // whether pieces are apart; otherwise only buckets are
  u32 column[SLOTS_MAX];
  u32 kind[SLOTS_MAX];      // what the column's images stand for
  u32 as_float[SLOTS_MAX];  // whether values are added up as floats, or as wrapping integers
} AggregateArgs;

typedef struct {
  u32 rows;
  u32 count[SLOTS_MAX];
  u64 sum[SLOTS_MAX];   // an integer, or the bits of a float
  double rest[SLOTS_MAX];  // what the float has lost by rounding
  i64 least[SLOTS_MAX];
  i64 greatest[SLOTS_MAX];
} Sums;

INLINE void clear(Sums* sums, u32 slots) {
  sums->rows = 0;
  UNROLL for (u32 s = 0; s < slots; ++s) {
    sums->count[s] = 0;
    sums->sum[s] = 0;
    sums->rest[s] = 0.0;
    sums->least[s] = 0x7fffffffffffffffll;
    sums->greatest[s] = -0x7fffffffffffffffll - 1;
  }
}

// Adds a float to a sum, and what rounding loses to the rest.
INLINE void add_float(u64* sum, double* rest, double value) {
  double old = bits_to_f64(*sum), now = old + value, part = now - old;
  *rest += (old - (now - part)) + (value - part);
  *sum = f64_to_bits(now);
}

INLINE void add(Sums* to, const Sums* from, const AggregateArgs* a, u32 slots) {
  to->rows += from->rows;
  UNROLL for (u32 s = 0; s < slots; ++s) {
    to->count[s] += from->count[s];
    if (a->as_float[s]) {
      add_float(&to->sum[s], &to->rest[s], bits_to_f64(from->sum[s]));
      to->rest[s] += from->rest[s];
    } else {
      to->sum[s] += from->sum[s];
    }
    if (from->least[s] < to->least[s]) to->least[s] = from->least[s];
    if (from->greatest[s] > to->greatest[s]) to->greatest[s] = from->greatest[s];
  }
}

// A value, as the number that is added up.
INLINE u64 number_of(u32 kind, i64 image, u32 as_float) {
  switch (kind) {
    case KIND_F64: return f64_to_bits(f64_of_image(image));
    case KIND_F32: return f64_to_bits((double)f32_of_image(image));
    case KIND_U64: {
      u64 value = (u64)image ^ 0x8000000000000000ull;
      return as_float ? f64_to_bits((double)value) : value;
    }
    default: return as_float ? f64_to_bits((double)image) : (u64)image;
  }
}

// What a warp has loaded of its strip: of each slot the images, and which of the lane's rows have one.
typedef struct {
  i64 (*images)[TOGETHER][WARP];
  u32 valid[SLOTS_MAX];
  u32 kind[SLOTS_MAX];
} Values;

// Adds the lane's row of these 32 places.
INLINE void add_row(Sums* sums, const AggregateArgs* a, const Values* values, u32 slots, u32 i) {
  sums->rows += 1u;
  UNROLL for (u32 s = 0; s < slots; ++s) {
    if (!((values->valid[s] >> i) & 1u)) continue;
    i64 image = values->images[s][i][lane_index()];
    u64 number = number_of(values->kind[s], image, a->as_float[s]);
    sums->count[s] += 1u;
    if (a->as_float[s]) add_float(&sums->sum[s], &sums->rest[s], bits_to_f64(number));
    else sums->sum[s] += number;
    if (image < sums->least[s]) sums->least[s] = image;
    if (image > sums->greatest[s]) sums->greatest[s] = image;
  }
}

INLINE void from_lane(Sums* to, const Sums* from, u32 slots, u32 lane) {
  to->rows = shuffle_u32(from->rows, lane);
  UNROLL for (u32 s = 0; s < slots; ++s) {
    to->count[s] = shuffle_u32(from->count[s], lane);
    to->sum[s] = shuffle_u64(from->sum[s], lane);
    to->rest[s] = bits_to_f64(shuffle_u64(f64_to_bits(from->rest[s]), lane));
    to->least[s] = (i64)shuffle_u64((u64)from->least[s], lane);
    to->greatest[s] = (i64)shuffle_u64((u64)from->greatest[s], lane);
  }
}

// The sums of all lanes, in lane 0.
INLINE void add_lanes(Sums* sums, const AggregateArgs* a, u32 slots) {
  u32 lane = lane_index();
  ROLLED for (u32 distance = WARP / 2u; distance; distance >>= 1) {
    Sums other;
    from_lane(&other, sums, slots, (lane + distance) % WARP);
    if (lane < distance) add(sums, &other, a, slots);
  }
}

// The sums of this lane and of those before it, back to the lane that begins its run.
INLINE void add_runs(Sums* sums, const AggregateArgs* a, u32 slots, u32 begins) {
  u32 lane = lane_index();
  u32 own = begins & (lanes_below(lane) | (1u << lane));
  u32 first = own ? highest_bit(own) : 0;
  ROLLED for (u32 distance = 1; distance < WARP; distance <<= 1) {
    Sums other;
    from_lane(&other, sums, slots, (lane - distance) % WARP);
    if (lane >= first + distance) add(sums, &other, a, slots);
  }
}

INLINE void write_sums(u64* record, const Sums* sums, u32 slots) {
  record[WORD_ROWS] = sums->rows;
  UNROLL for (u32 s = 0; s < slots; ++s) {
    u64* slot = record + WORD_SLOTS + s * SLOT_WORDS;
    slot[SLOT_COUNT] = sums->count[s];
    slot[SLOT_SUM] = sums->sum[s];
    slot[SLOT_REST] = f64_to_bits(sums->rest[s]);
    slot[SLOT_LEAST] = (u64)sums->least[s];
    slot[SLOT_GREATEST] = (u64)sums->greatest[s];
  }
}

INLINE void read_sums(Sums* sums, const u64* record, u32 slots) {
  sums->rows = (u32)record[WORD_ROWS];
  UNROLL for (u32 s = 0; s < slots; ++s) {
    const u64* slot = record + WORD_SLOTS + s * SLOT_WORDS;
    sums->count[s] = (u32)slot[SLOT_COUNT];
    sums->sum[s] = slot[SLOT_SUM];
    sums->rest[s] = bits_to_f64(slot[SLOT_REST]);
    sums->least[s] = (i64)slot[SLOT_LEAST];
    sums->greatest[s] = (i64)slot[SLOT_GREATEST];
  }
}

// The beginning of a time's bucket. Rounded down, before the origin too.
INLINE i64 bucket_of(i64 time, i64 origin, u64 width) {
  if (time >= origin) return (i64)((u64)time - ((u64)time - (u64)origin) % width);
  u64 over = ((u64)origin - (u64)time) % width;
  return over ? (i64)((u64)time - (width - over)) : time;
}

// What a warp knows of its strip before it adds anything up.
typedef struct {
  u32 row[TOGETHER];
  u32 piece[TOGETHER];
  u32 begins;  // of lane n: which of the n-th 32 places begin a run
  u32 wanted;
  u32 runs;    // how many begin here
} Strip;

INLINE void look_at_strip(Strip* strip, const AggregateArgs* a, u32 start) {
  u32 lane = lane_index();
  const i64* times = AT(const i64, a->times);
  u32 at = start + lane < a->end ? piece_of(&a->rows, start + lane) : 0, begin_piece = 0;
  u32 last_piece = 0, last_known = 0;
  i64 begin = 0, last_begin = 0;
  u32 known = 0;
  // The row before the strip, unless it is the first of all.
  if (start > a->first && start < a->end) {
    last_piece = piece_of(&a->rows, start - 1u);
    last_begin = a->width ? bucket_of(times[row_of(&a->rows, last_piece, start - 1u)], a->origin, a->width) : 0;
    last_known = 1;
  }
  strip->begins = 0;
  strip->wanted = 0;
  strip->runs = 0;
  UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
    u32 place = start + i * WARP + lane;
    u32 in = place < a->end;
    if (in) at = piece_from(&a->rows, at, place);
    strip->piece[i] = at;
    strip->row[i] = in ? row_of(&a->rows, at, place) : 0;
    strip->wanted |= in << i;
    if (in && a->width) {
      i64 time = times[strip->row[i]];
      // Times of a piece only grow: a division is needed where a lane comes to a new bucket.
      if (!known || begin_piece != at || (u64)time - (u64)begin >= a->width) {
        begin = bucket_of(time, a->origin, a->width);
      }
      begin_piece = at;
      known = 1;
    }
    u32 before_piece = shuffle_u32(at, (lane - 1u) % WARP);
    i64 before_begin = (i64)shuffle_u64((u64)begin, (lane - 1u) % WARP);
    if (lane == 0) {
      before_piece = last_piece;
      before_begin = last_begin;
    }
    u32 differs = (a->by_piece && before_piece != at) || before_begin != begin || (lane == 0 && !last_known);
    u32 begins = warp_ballot(in && differs);
    if (lane == i) strip->begins = begins;
    strip->runs += count_bits(begins);
    last_piece = shuffle_u32(at, WARP - 1u);
    last_begin = (i64)shuffle_u64((u64)begin, WARP - 1u);
    last_known = 1;
  }
}

// Of one warp: where it writes to, and what it has added up of the run that it is in.
typedef struct {
  u64* lead;
  u64* records;
  u32 run;      // runs that have begun before the place where the warp is
  u32 in_lead;
} Writer;

// Ends the run that the warp is in. All lanes hold parts of it.
INLINE void end_run(Writer* writer, Sums* sums, const AggregateArgs* a, u32 slots) {
  add_lanes(sums, a, slots);
  if (lane_index() == 0) {
    if (writer->in_lead) write_sums(writer->lead, sums, slots);
    else if (writer->run - 1u < a->capacity) {
      write_sums(writer->records + (u64)(writer->run - 1u) * RECORD_WORDS(slots), sums, slots);
    }
  }
  writer->in_lead = 0;
  clear(sums, slots);
}

// The i-th 32 places of the strip, from `start` on, of which at least one begins a run.
INLINE void add_with_runs(Writer* writer, Sums* sums, const AggregateArgs* a, const Values* values, u32 slots,
                          u32 begins, u32 i, u32 start, u32 keep) {
  u32 lane = lane_index(), first = lowest_bit(begins);
  u32 run = writer->run + count_bits(begins & (lanes_below(lane) | (1u << lane)));
  u32 fits = run - 1u < a->capacity;
  if (lane < first && keep) add_row(sums, a, values, slots, i);
  end_run(writer, sums, a, slots);
  if (lane >= first && keep) add_row(sums, a, values, slots, i);
  if ((begins >> lane) & 1u && fits) {
    u64* record = writer->records + (u64)(run - 1u) * RECORD_WORDS(slots);
    u32 piece = piece_of(&a->rows, start + lane), row = row_of(&a->rows, piece, start + lane);
    record[WORD_PIECE] = piece;
    record[WORD_BUCKET] = a->width ? (u64)bucket_of(AT(const i64, a->times)[row], a->origin, a->width) : 0;
  }
  u32 all = count_bits(begins);
  if (all > 1u) {
    Sums middle = *sums;
    add_runs(&middle, a, slots, begins);
    u32 ends = lane < WARP - 1u && (begins >> (lane + 1u)) & 1u;
    if (ends && lane >= first && fits) {
      write_sums(writer->records + (u64)(run - 1u) * RECORD_WORDS(slots), &middle, slots);
    }
    if (run != writer->run + all) clear(sums, slots);
  }
  writer->run += all;
}

// Adds the leads of a tile's strips to the runs that they belong to, one after the other.
INLINE void add_leads(const AggregateArgs* a, u64 (*leads)[RECORD_WORDS(SLOTS_MAX)], const u32* runs_before,
                      u32 tile, u32 tile_runs, u32 slots) {
  u64* tile_lead = AT(u64, a->leads) + (u64)tile * RECORD_WORDS(slots);
  Sums total, part;
  clear(&total, slots);
  for (u32 w = 0; w < WARPS; ++w) {
    read_sums(&part, leads[w], slots);
    if (runs_before[w] == tile_runs) {
      add(&total, &part, a, slots);
    } else if (part.rows && runs_before[w] - 1u < a->capacity) {
      u64* record = AT(u64, a->records) + (u64)(runs_before[w] - 1u) * RECORD_WORDS(slots);
      Sums run;
      read_sums(&run, record, slots);
      add(&run, &part, a, slots);
      write_sums(record, &run, slots);
    }
  }
  write_sums(tile_lead, &total, slots);
}

// Adds up a strip; to its lead and to the runs that begin in it.
INLINE void add_strip(Writer writer, const AggregateArgs* a, const Strip* strip, i64 (*images)[TOGETHER][WARP],
                      u32 start, u32 slots) {
  Values values;
  values.images = images;
  u32 keep = keep_rows(&a->rows, strip->row, strip->piece, strip->wanted);
  UNROLL for (u32 s = 0; s < slots; ++s) {
    const Column column = AT(const Column, a->rows.columns)[a->column[s]];
    i64 loaded[TOGETHER];
    values.kind[s] = a->kind[s];
    values.valid[s] = load_images(&column, strip->row, strip->piece, keep, loaded);
    // Each lane reads what it has written.
    UNROLL for (u32 i = 0; i < TOGETHER; ++i) {
      if ((keep >> i) & 1u) images[s][i][lane_index()] = loaded[i];
    }
  }
  Sums sums;
  clear(&sums, slots);
  ROLLED for (u32 i = 0; i < TOGETHER; ++i) {
    u32 begins = shuffle_u32(strip->begins, i), kept = (keep >> i) & 1u;
    if (begins) {
      add_with_runs(&writer, &sums, a, &values, slots, begins, i, start + i * WARP, kept);
    } else if (kept) {
      add_row(&sums, a, &values, slots, i);
    }
  }
  end_run(&writer, &sums, a, slots);
}

INLINE void aggregate(const AggregateArgs* a, const u32 slots, i64 (*images)[TOGETHER][WARP]) {
  SHARED u32 scratch[WARPS];
  SHARED u32 runs_before[WARPS];
  SHARED u32 shared_tile, shared_before;
  SHARED u64 leads[WARPS][RECORD_WORDS(SLOTS_MAX)];
  u32 warp = warp_index(), lane = lane_index();
  u32 tiles = (a->end - a->first + TILE - 1u) / TILE;
  for (;;) {
    u32 tile = take_tile(AT(u32, a->ticket), &shared_tile);
    if (tile >= tiles) return;
    u32 start = a->first + tile * TILE + warp * STRIP;
    Strip strip;
    look_at_strip(&strip, a, start);
    u32 all, before = block_sum_before(lane == 0 ? strip.runs : 0, scratch, &all);
    if (warp == 0) {
      u32 tile_runs = (u32)tiles_before(AT(u64, a->status), tile, all);
      if (lane == 0) {
        shared_before = tile_runs;
        AT(u32, a->tile_runs)[tile] = tile_runs;
        if (tile == tiles - 1u) *AT(u64, a->run_count) = (u64)tile_runs + all;
      }
    }
    block_barrier();
    // Lane 0 knows how many runs of the tile begin before the strip.
    Writer writer = {leads[warp], AT(u64, a->records), shared_before + shuffle_u32(before, 0), 1};
    if (lane == 0) runs_before[warp] = writer.run;
    add_strip(writer, a, &strip, images, start, slots);
    if (!PLANTED(BUG_MISSING_BARRIER_LEADS)) block_barrier();
    if (thread_index() == 0) add_leads(a, leads, runs_before, tile, shared_before, slots);
  }
}

KERNEL(aggregate0, AggregateArgs, BLOCK) { aggregate(&a, 0, 0); }

KERNEL(aggregate1, AggregateArgs, BLOCK) {
  SHARED i64 images[WARPS][1][TOGETHER][WARP];
  aggregate(&a, 1, images[warp_index()]);
}

KERNEL(aggregate2, AggregateArgs, BLOCK) {
  SHARED i64 images[WARPS][2][TOGETHER][WARP];
  aggregate(&a, 2, images[warp_index()]);
}

// The tiles after `tile` before which as many runs have begun; the number of runs never falls.
INLINE u32 end_of_chain(const u32* tile_runs, u32 tile, u32 tiles) {
  u32 low = tile + 1u, high = tiles;
  while (low < high) {
    u32 middle = low + (high - low) / 2u;
    if (tile_runs[middle] == tile_runs[tile]) low = middle + 1u; else high = middle;
  }
  return low;
}

// Adds the leads of tiles to the runs that they belong to. One block for each run that goes on in a tile.
INLINE void fold(const AggregateArgs* a, const u32 slots) {
  SHARED u64 parts[WARPS][RECORD_WORDS(SLOTS_MAX)];
  const u32* tile_runs = AT(const u32, a->tile_runs);
  u32 tiles = (a->end - a->first + TILE - 1u) / TILE;
  for (u32 tile = block_index() + 1u; tile < tiles; tile += grid_blocks()) {
    u32 runs = tile_runs[tile];
    // The first tile begins with a run, so that there is one to go on.
    if ((tile > 1u && tile_runs[tile - 1u] == runs) || runs - 1u >= a->capacity) continue;
    u32 end = PLANTED(BUG_SHORT_CHAIN) ? tile + 1u : end_of_chain(tile_runs, tile, tiles);
    Sums sums, part;
    clear(&sums, slots);
    for (u32 t = tile + thread_index(); t < end; t += block_threads()) {
      read_sums(&part, AT(const u64, a->leads) + (u64)t * RECORD_WORDS(slots), slots);
      add(&sums, &part, a, slots);
    }
    add_lanes(&sums, a, slots);
    block_barrier();
    if (lane_index() == 0) write_sums(parts[warp_index()], &sums, slots);
    block_barrier();
    if (thread_index() == 0) {
      u64* record = AT(u64, a->records) + (u64)(runs - 1u) * RECORD_WORDS(slots);
      read_sums(&sums, record, slots);
      for (u32 w = 0; w < WARPS; ++w) {
        read_sums(&part, parts[w], slots);
        add(&sums, &part, a, slots);
      }
      write_sums(record, &sums, slots);
    }
  }
}

KERNEL(fold0, AggregateArgs, BLOCK) { fold(&a, 0); }
KERNEL(fold1, AggregateArgs, BLOCK) { fold(&a, 1); }
KERNEL(fold2, AggregateArgs, BLOCK) { fold(&a, 2); }
