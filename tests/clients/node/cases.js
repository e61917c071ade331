// Runs cases and says how each ended, in the words that tests/lib/cases.py takes from a program.
'use strict'

const assert = require('node:assert/strict')

const chosen = process.argv.slice(2)

/** A promise that fails after so many milliseconds. */
function limit(promise, milliseconds) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not finished after ${milliseconds / 1000} s`)), milliseconds)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/**
 * Runs a case. It gets a function to which it hands what it opens, and all of that is closed when it ends.
 * @param {string} name
 * @param {(closing: (thing: {disconnect(): Promise<void>}) => any) => Promise<void>} body
 */
async function run(name, body) {
  if (chosen.length > 0 && !chosen.includes(name)) return
  const began = process.hrtime.bigint()
  const open = []
  const closing = (thing) => {
    open.push(thing)
    return thing
  }
  let reason = ''
  try {
    await limit(body(closing), 180_000)
  } catch (error) {
    console.error(error)
    reason = String(error?.message || error)
  }
  for (const thing of open.reverse()) await limit(thing.disconnect(), 10_000).catch(() => {})
  const seconds = Number(process.hrtime.bigint() - began) / 1e9
  console.log(['case', name, reason ? 'fail' : 'pass', seconds.toFixed(1), reason.replace(/\s+/g, ' ')].join('\t'))
}

/** Waits for a condition. */
async function until(what, condition, milliseconds = 60_000) {
  const deadline = Date.now() + milliseconds
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what}: not after ${milliseconds / 1000} s`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

module.exports = { run, until }
