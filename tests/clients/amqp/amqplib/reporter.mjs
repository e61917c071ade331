// What became of each of amqplib's tests, a line each as JSON: names of the suites it is in and its own, outcome, seconds, reason. Node's
// own reports come apart where a file of tests ends before its time.

export default async function * (events) {
  const within = []
  for await (const { type, data } of events) {
    if (type === 'test:start') {
      within.length = data.nesting
      within.push(data.name)
    }
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details.type === 'suite') continue
    const { name, nesting, details, skip } = data
    const outcome = skip !== undefined ? 'skip' : type === 'test:pass' ? 'pass' : 'fail'
    const error = details.error?.cause ?? details.error
    const path = [...within.slice(0, nesting), name]
    yield JSON.stringify([path, outcome, details.duration_ms / 1000, String(error?.message ?? error ?? '')]) + '\n'
  }
}
