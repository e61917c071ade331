// Loaded before amqplib's tests, some of which have the usual port written in them: it is the port of the broker under test.
'use strict'

const net = require('node:net')

const port = Number(process.env.AMQP.split(':').pop())
const { connect } = net.Socket.prototype

net.Socket.prototype.connect = function (...given) {
  // net.connect hands over what it was given already in order: the options first
  const options = Array.isArray(given[0]) ? given[0][0] : given[0]
  if (Number(options?.port) === 5672) options.port = port
  return connect.apply(this, given)
}
