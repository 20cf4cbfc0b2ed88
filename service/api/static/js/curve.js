/** The mathematics of drawn curves: thinning, smoothing, the best point. No DOM, no calls.
 *
 * A curve is {epochs, losses, validation, whole}: as many losses as epochs (NaN where one is not finite), as many
 * validation losses or null, and how many epochs there were before it was thinned.
 */

export const POINTS = 2_000;

/** The curve of a job as the service tells it; what is no number is NaN. */
export function curveOf(job) {
  const epochs = job.curve_epochs ?? job.losses.map((_, place) => place + 1);
  return { epochs, losses: finite(job.losses), validation: job.validation_losses && finite(job.validation_losses), whole: job.epoch };
}

function finite(numbers) {
  return numbers.map((number) => (typeof number === "number" ? number : NaN));
}

/** Take in the next epoch of a running job; whether it was the next one. */
export function append(curve, { epoch, loss, validation_loss: validation }) {
  const last = curve.epochs.at(-1) ?? 0;
  if (epoch !== last + 1) return epoch <= last;
  curve.epochs.push(epoch);
  curve.losses.push(typeof loss === "number" ? loss : NaN);
  if (validation !== undefined) (curve.validation ??= []).push(typeof validation === "number" ? validation : NaN);
  curve.whole = epoch;
  return true;
}

/** The curve by at most so many points: the lowest and the highest of each stretch, the first and the last. */
export function thinned(curve, most) {
  const { epochs, losses, validation } = curve;
  if (epochs.length <= most) return curve;
  const columns = validation ? [losses, validation] : [losses];
  const stretches = Math.floor((most - 2) / (2 * columns.length));
  const kept = new Set([0, epochs.length - 1]);
  for (const column of columns) {
    for (let stretch = 0; stretch < stretches; stretch += 1) {
      const first = Math.floor((stretch * epochs.length) / stretches);
      const end = Math.floor(((stretch + 1) * epochs.length) / stretches);
      for (const place of extremes(column, first, end)) kept.add(place);
    }
  }
  const places = [...kept].sort((a, b) => a - b);
  const pick = (column) => column && places.map((place) => column[place]);
  return { ...curve, epochs: pick(epochs), losses: pick(losses), validation: pick(validation) };
}

/** The places of the lowest and the highest number between two places; of one that is not finite before all. */
function extremes(column, first, end) {
  let [low, high] = [first, first];
  for (let place = first; place < end; place += 1) {
    if (Number.isNaN(column[place])) return [place];
    if (column[place] < column[low]) low = place;
    if (column[place] > column[high]) high = place;
  }
  return [low, high];
}

/** The means of what came before, each number weighing `weight` to the power of its distance in epochs.
 *
 * That is the debiased exponential mean. What is constant stays so, to the last bit; a point never depends on those
 * after it; two points are too few to smooth.
 */
export function smoothed(epochs, numbers, weight) {
  if (weight === 0 || numbers.filter(Number.isFinite).length < 3) return numbers;
  let [mean, total, last] = [0, 0, 0];
  return numbers.map((number, place) => {
    if (!Number.isFinite(number)) return NaN;
    total = total * weight ** (epochs[place] - last) + 1;
    mean += (number - mean) / total;
    last = epochs[place];
    return mean;
  });
}

/** The place of the lowest validation loss, or of the lowest loss where there is no validation; -1 of none. */
export function best({ losses, validation }) {
  const column = validation ?? losses;
  let place = -1;
  column.forEach((number, at) => {
    if (Number.isFinite(number) && (place < 0 || number < column[place])) place = at;
  });
  return place;
}
