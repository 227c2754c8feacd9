// What the pages' scripts share with uPlot.iife.min.js.
declare const uPlot: any;
