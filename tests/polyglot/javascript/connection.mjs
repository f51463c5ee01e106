// How both programs reach the server: `node PROGRAM ADDRESS HUB`.

import grpc from "@grpc/grpc-js";

const [, , address, hub] = process.argv;

const quiet = () => undefined;
const loud = (...words) => console.error(...words);

export const connection = {
  hostAddress: address,
  logger: { error: loud, warn: loud, info: quiet, debug: quiet },
  metadataGenerator: async () => {
    const metadata = new grpc.Metadata();
    metadata.set("taskhub", hub);
    return metadata;
  },
};
